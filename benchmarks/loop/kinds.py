"""Every kind of history.

Here: `KINDS`, filled by the modules that enter their kinds. Not here: any kind.
"""

import broken_kinds  # noqa: F401  (entered on import)
import calm_kinds  # noqa: F401
import changing_kinds  # noqa: F401
from catalogue import KINDS, Kind

__all__ = ["KINDS", "Kind"]
