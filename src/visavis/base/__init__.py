"""The base: all profiles, sorted by customer id.

::

    indicators (table)  ┐
    attributes (table)  ├── Base.from_tables() ──► Base ──► write() / read()
    facts (table)       ┘

A profile is a customer's indicators, attributes and facts. Everything is checked on the way in, so
that what reads a base can trust it: ids are unique and sorted by their UTF-8 bytes, indicators are
finite float32, attributes have types that rules can read, and facts name customers of the base.

Facts, as they come in:

==============  ========  ==========================================================================
column          type      meaning
==============  ========  ==========================================================================
customer_id     string    the customer
product         string    the product that the fact is about; null if it is about a capability
capability_id   string    the capability that the fact is about; null if it is about a product
kind            string    bought, refused, contacted or excluded
date            date      the UTC day on which it happened
count           integer   how often on that day, 1 … 2^31 − 1; default 1
==============  ========  ==========================================================================

::

    base.py       Base: profiles in memory
    door.py       what is checked on the way in
    layout.py     one part of a base as one Arrow file
    manifest.py   what belongs to a version
    stored.py     StoredBase: a version on disk or in an object store, opened part by part
    writing.py    the next version: parts first, the manifest last
    loading.py    load: streams of tables to parts, with memory for one part
"""

from visavis.base.base import Base
from visavis.base.door import FACT_SCHEMA
from visavis.base.loading import TableStream, load
from visavis.base.stored import StoredBase
from visavis.base.writing import VersionWriter

__all__ = ["FACT_SCHEMA", "Base", "StoredBase", "TableStream", "VersionWriter", "load"]
