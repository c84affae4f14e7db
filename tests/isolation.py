"""Imports every module of a package, and checks that some other packages are not in this environment.

Usage: isolation.py PACKAGE ABSENT...
"""

import importlib
import importlib.util
import pkgutil
import sys

package, *absent = sys.argv[1:]
present = [name for name in absent if importlib.util.find_spec(name)]
if present:
    sys.exit(f"{package} drags in {', '.join(present)}")
root = importlib.import_module(package)
modules = [module.name for module in pkgutil.walk_packages(root.__path__, f"{package}.")]
for module in modules:
    importlib.import_module(module)
print(f"{package}: {len(modules)} modules imported, without {', '.join(absent)}")
