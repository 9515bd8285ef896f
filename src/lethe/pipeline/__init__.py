"""The stages: what is missing is made, what is there is used."""
