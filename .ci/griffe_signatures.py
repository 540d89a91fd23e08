"""The signatures of `equinox.Module`s, whose `__init__` exists at run time only."""

import inspect
import sys

import griffe

import linsolve_prim

KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: griffe.ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.VAR_POSITIONAL: griffe.ParameterKind.var_positional,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
    inspect.Parameter.VAR_KEYWORD: griffe.ParameterKind.var_keyword,
}


class Signatures(griffe.Extension):
    """Adds an `__init__` with the parameters of the class that was imported."""

    def on_class(self, *, cls, **kwargs):
        found = _imported(cls)
        if "__init__" in cls.members or found is None or inspect.isabstract(found):
            return
        try:
            signature = inspect.signature(found)
        except (TypeError, ValueError):
            return
        parameters = griffe.Parameters(
            griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword),
            *(_parameter(p) for p in signature.parameters.values()),
        )
        cls.set_member("__init__", griffe.Function("__init__", parameters=parameters))


def _imported(cls):
    module = sys.modules.get(cls.module.path)
    return getattr(module, cls.name, None) if module else None


def _parameter(p):
    default = None if p.default is inspect.Parameter.empty else _shown(p.default)
    annotation = p.annotation if isinstance(p.annotation, str) else None
    return griffe.Parameter(p.name, annotation=annotation, kind=KINDS[p.kind], default=default)


def _shown(default):
    """A default as one would write it."""
    if callable(default) and hasattr(default, "__name__"):
        return default.__name__
    return "..." if "<" in repr(default) else repr(default)


assert linsolve_prim.__version__  # what it documents must have been imported
