"""The catalog: everything the company can do for a customer, checked and in one fixed order.

::

    catalog.py   Catalog: the face, and the schema that people write
    columns.py   a table of any origin → checked columns, sorted by id
    nested.py    weights and history terms: maps and lists → dense arrays
    door.py      what is refused, naming field, row and capability
    files.py     Parquet, CSV, JSON lines and TOML
    schema.py    the schema as code
"""

from visavis.catalog.catalog import Catalog, HistoryTerm, HistoryTerms

__all__ = ["Catalog", "HistoryTerm", "HistoryTerms"]
