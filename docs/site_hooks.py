"""Pages of the site that are kept outside docs/: README.md, CONTRIBUTING.md and results/**/README.md with their figures.

In the site each of them has the path it has in the repository, and the pages of docs/ are at the top. A link is written for the
repository, where a forge shows it; here it is rewritten for the site. A link to a file that is no page (params.yaml, a module) becomes
plain text: the site stands alone.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "results/**/*.md", "results/**/*.png")
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and figures that are outside docs/."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page from repository paths to site paths; code stays as it is."""
    own = page.file.src_uri
    in_repository = own if (ROOT / own).is_file() else f"docs/{own}"

    def rewritten(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        if not target or ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), target))
        in_site = path.removeprefix("docs/")
        if not files.get_file_from_path(in_site):
            return match["text"] if (ROOT / path).exists() else match[0]  # a link that leads nowhere stays, and fails the build
        relative = posixpath.relpath(in_site, posixpath.dirname(own) or ".")
        return f"{match['image']}[{match['text']}]({relative}{f'#{anchor}' if anchor else ''})"

    parts = CODE.split(markdown)
    # Links around code (`[`params.yaml`](...)`) are not used: the split would cut them
    return "".join(part if n % 2 else LINK.sub(rewritten, part) for n, part in enumerate(parts))
