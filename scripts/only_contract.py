"""An import-linter contract: these modules import only what is allowed, directly.

The standard library is allowed with `standard_library = true`, else module by module.
"""

import sys

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """`modules` and what is below them import `allowed` and what is below that, and nothing else."""

    type_name = "only"

    modules = fields.SetField(subfield=fields.StringField())
    allowed = fields.SetField(subfield=fields.StringField())
    standard_library = fields.BooleanField(required=False, default=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Whether no module imports anything else."""
        allowed = set(self.allowed)  # type: ignore[call-overload]
        if self.standard_library:
            allowed |= sys.stdlib_module_names
        importers = {
            importer
            for module in self.modules  # type: ignore[attr-defined]
            for importer in (module, *graph.find_descendants(module))
        }
        broken = [
            f"{importer} imports {imported}"
            for importer in sorted(importers)
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not any(f"{imported}.".startswith(f"{name}.") for name in allowed)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name every import that is not allowed."""
        for line in check.metadata["broken"]:
            output.print_error(line)
