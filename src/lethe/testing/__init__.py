"""Contract tests for methods, measures and data sources of one's own: pytest classes to subclass. Needs pytest."""

from lethe.testing.data_source_contract import DataSourceContract
from lethe.testing.measure_contract import MeasureContract
from lethe.testing.method_contract import MethodContract

__all__ = ["DataSourceContract", "MeasureContract", "MethodContract"]
