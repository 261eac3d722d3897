"""The native modules, compiled from `_ext/`; each has its stub beside this file."""
