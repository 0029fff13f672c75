"""What goes over the wire: requests as Pydantic models, answers as typed dictionaries.

A request is checked once, strictly ("10" is not 10) and with nothing unknown. An answer is built by us and
needs no checking, so it is a dictionary with a declared shape: documented in OpenAPI, serialised as it is.
"""
