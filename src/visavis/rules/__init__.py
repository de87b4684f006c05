"""Rules: SQL conditions over attributes, compiled once and evaluated with three-valued logic.

::

    rule.py     Rule and the language: compile_rule, evaluate, outcomes
    text.py     text → lexemes: known words, names, literals, operators
    syntax.py   lexemes → typed tree, structured by sqlglot and checked against the text again
    tree.py     the typed tree and its one evaluator
"""

from visavis.rules.rule import AS_OF, Outcome, Rule, check_attribute_schema, compile_rule

__all__ = ["AS_OF", "Outcome", "Rule", "check_attribute_schema", "compile_rule"]
