"""History: what happened between a customer and a capability, as one number per pair.

::

    facts.py         facts → rows by kind, level and subject, as of a day
    adjust.py        rows × history terms → the CSR that the kernel adds to z
"""

from visavis.history.adjust import (
    LastContacts,
    adjustments,
    last_contact_days,
    term_contributions,
)

__all__ = ["LastContacts", "adjustments", "last_contact_days", "term_contributions"]
