"""Names and labels of a cell's objects.

A Knative Service's name is the beginning of its pods' names (`NAME-00001-deployment-0123456789-abcde`), and a pod's
name is its host's id, so 28 characters are the most that leaves both whole (63). A cell's own id is longer (it begins
with the tenant's name) and stands in an annotation; the Service's name is made from it by a digest, so that whoever
knows the cell knows the name without asking.
"""

import hashlib

MOST = 28
PREFIX = "chimera.ecosystem/"
CELL = PREFIX + "cell"
DIGEST = PREFIX + "digest"
ATTEMPT = PREFIX + "attempt"
FAILED = PREFIX + "failed-revision"
MANAGED_BY = "app.kubernetes.io/managed-by"
PART_OF = "app.kubernetes.io/part-of"
CELLS_OF = PREFIX + "cells-of"
MANAGER = "chimera"
KNATIVE_SERVICE = "serving.knative.dev/service"
CONFIGURATION_GENERATION = "serving.knative.dev/configurationGeneration"
KNATIVE_REVISION = "serving.knative.dev/revision"
FUNCTION = "function.knative.dev"
AUTOSCALING = "autoscaling.knative.dev/"
MIN_SCALE, INITIAL_SCALE = AUTOSCALING + "min-scale", AUTOSCALING + "initial-scale"
SERVICE_TYPE = "networking.internal.knative.dev/serviceType"


def service_name(cell: str, framework: str) -> str:
    """The Knative Service of a cell: `c-langgraph-0123456789abcdef`."""
    return f"c-{framework}-{hashlib.sha256(cell.encode()).hexdigest()[:16]}"


def managed() -> str:
    """The selector of everything that Chimera's processes manage."""
    return f"{MANAGED_BY}={MANAGER}"


def parts() -> str:
    """The selector of what installations are made of, whoever installed them: Helm writes itself over `managed-by`."""
    return f"{PART_OF}={MANAGER}"
