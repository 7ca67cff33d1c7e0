"""The laws, a page per subject. A law is a function; the first line of its docstring is its statement."""
