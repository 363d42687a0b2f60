"""An extension of Griffe, which reads the package for the reference of the site.

Griffe keeps one object for a name. Where a package has a function and a submodule of the same name,
as `keras_ic.surgery.fold`, it keeps the submodule, and the function is missing in the reference.
This puts the function there. It also makes another name of a class an alias, which an `Attribute`
without a docstring is not shown as.
"""

import contextlib

import griffe


class PublicNames(griffe.Extension):
    """Puts functions in the place of submodules of their name, and aliases of classes."""

    def on_package(self, *, pkg, loader, **kwargs):
        """Changes the package when all of it is loaded."""
        modules = list(_modules(pkg))
        shadowed = {}
        for module in modules:
            for name in module.exports or ():
                name = str(name)
                submodule = module.members.get(name)
                if (
                    submodule is not None
                    and not submodule.is_alias
                    and submodule.is_module
                    and name in submodule.members
                    and submodule.members[name].is_function
                ):
                    shadowed[submodule.path] = (module, submodule.members[name])
            for name, member in list(module.members.items()):
                value = getattr(member, "value", None) if not member.is_alias else None
                target = module.members.get(str(value)) if value is not None else None
                if target is not None and not target.is_alias and target.is_class:
                    module.set_member(name, griffe.Alias(name, target, parent=module))
        # What is imported from a shadowed submodule is found through its path, so before it goes.
        for module in modules:
            for member in module.members.values():
                if member.is_alias and not _leads_to(member, shadowed, pkg):
                    with contextlib.suppress(
                        griffe.AliasResolutionError, griffe.CyclicAliasError, KeyError
                    ):
                        member.resolve_target()
        for module, function in shadowed.values():
            alias = griffe.Alias(function.name, function, parent=module)
            module.set_member(function.name, alias)


def _modules(module):
    yield module
    for member in list(module.members.values()):
        if not member.is_alias and member.is_module:
            yield from _modules(member)


def _leads_to(alias, paths, package):
    """Whether an alias comes to one of the paths, also through others."""
    path = alias.target_path
    while path not in paths:
        own = path.removeprefix(f"{package.path}.")
        if own == path:
            return False
        try:
            found = package[own]
        except (KeyError, griffe.AliasResolutionError):
            return False
        if not found.is_alias:
            return False
        path = found.target_path
    return True
