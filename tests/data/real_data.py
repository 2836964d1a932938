"""Where real images for tests lie: HUBEL_TEST_DATA, or shared/data beside the project's folder."""

import os
from pathlib import Path

REAL = Path(os.environ.get("HUBEL_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
