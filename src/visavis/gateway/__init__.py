"""The gateway: opportunities over gRPC.

::

    codec.py      opportunities ⇄ the columns of the contract
    incoming.py   profiles, overrides and facts of the contract → arrays and tables
"""
