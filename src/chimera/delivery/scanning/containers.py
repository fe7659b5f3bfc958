"""A pod against Kubernetes' Pod Security Standard `restricted`, and what else keeps a container to itself.

The Knative Service that a cell becomes is read as the pod that it makes (`pod_of`). Each control of the standard is a
rule of its own; where the standard asks for something to be said (`runAsNonRoot`, `seccompProfile`), what is not said
is a finding too. A manifest that can't be read as a pod is not judged.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from chimera.agents.images import parse_image
from chimera.delivery.scanning.model import Place, Result, Severity, Unjudged, found

Json = Mapping[str, Any]

VOLUMES = frozenset(
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"]
)
CAPABILITIES = frozenset(
    [
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"),
        *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    ]
)
SYSCTLS = frozenset(
    [
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
        *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
        *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
        *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    ]
)
SELINUX = frozenset(["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
_KINDS = ("containers", "initContainers", "ephemeralContainers")
_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd", "/var/run/crio")


def pod_of(manifest: Json) -> tuple[str, Json] | None:
    """Where a manifest has its pod's spec, and the spec; None where it has none."""
    kind = manifest.get("kind")
    path = {"Pod": ("spec",), "CronJob": ("spec", "jobTemplate", "spec", "template", "spec")}.get(
        kind if isinstance(kind, str) else "", ("spec", "template", "spec")
    )
    part: Any = manifest
    for name in path:
        part = part.get(name) if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(part.get("containers"), list) or not part["containers"]:
        return None
    return ".".join(path), part


def scan_manifest(manifest: Json, *, file: str = "") -> Iterator[Result]:
    """Everything about one manifest."""
    found_pod = pod_of(manifest)
    if found_pod is None:
        yield Unjudged(
            scanner="containers",
            message=f"{manifest.get('kind', 'it')} holds no pod that can be read",
            next_step="render it as Kubernetes takes it",
            place=Place(file=file),
        )
        return
    path, pod = found_pod
    for rule, severity, message, step, field in _pod(pod):
        yield _finding(rule, severity, message, step, f"{path}.{field}" if field else path, file)
    security = _map(pod.get("securityContext"))
    for kind in _KINDS:
        for index, container in enumerate(_list(pod.get(kind))):
            if not isinstance(container, Mapping):
                yield Unjudged(
                    scanner="containers",
                    message=f"{kind}[{index}] is no container",
                    next_step="render it as Kubernetes takes it",
                    place=Place(file=file, field=f"{path}.{kind}[{index}]"),
                )
                continue
            where = f"{path}.{kind}[{index}]"
            for rule, severity, message, step, field in _container(container, security, kind):
                yield _finding(rule, severity, message, step, f"{where}.{field}" if field else where, file)


Rule = tuple[str, Severity, str, str, str]


def _pod(pod: Json) -> Iterator[Rule]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield ("host-namespaces", "critical", f"the pod shares the node's ({name})", f"leave {name} out", name)
    for index, volume in enumerate(_list(pod.get("volumes"))):
        kinds = set(_map(volume)) - {"name"}
        if "hostPath" in kinds:
            path = str(_map(_map(volume).get("hostPath")).get("path", ""))
            whole = path.rstrip("/") in ("", "/etc", "/var", "/proc") or path.startswith(_SOCKETS)
            worse: Severity = "critical" if whole else "high"
            yield (
                "host-path",
                worse,
                f"a folder of the node is mounted ({path[:80]})",
                "use a volume",
                f"volumes[{index}]",
            )
        elif kinds - VOLUMES:
            said = ", ".join(sorted(kinds - VOLUMES))
            yield (
                "volume-types",
                "high",
                f"a volume of a kind that isn't allowed ({said})",
                "use one that is",
                f"volumes[{index}]",
            )
    security = _map(pod.get("securityContext"))
    for index, sysctl in enumerate(_list(security.get("sysctls"))):
        if (name := str(_map(sysctl).get("name"))) not in SYSCTLS:
            yield (
                "sysctls",
                "high",
                f"{name} is set, which isn't safe",
                "leave it out",
                f"securityContext.sysctls[{index}]",
            )
    yield from _shared(security, "securityContext")
    if pod.get("automountServiceAccountToken") is not False:
        step = "say automountServiceAccountToken: false"
        yield ("api-token", "medium", "a token of the cluster's API is mounted", step, "automountServiceAccountToken")
    if pod.get("enableServiceLinks") is not False:
        step = "say enableServiceLinks: false"
        yield ("service-links", "low", "addresses of all services are in the environment", step, "enableServiceLinks")
    if pod.get("serviceAccountName", "default") == "default":
        yield (
            "service-account",
            "low",
            "it has the namespace's default service account",
            "give it its own",
            "serviceAccountName",
        )


def _shared(security: Json, where: str) -> Iterator[Rule]:
    """What may be said of the pod or of a container, and is wrong in either."""
    selinux = _map(security.get("seLinuxOptions"))
    if selinux.get("type", "") not in SELINUX or selinux.get("user") or selinux.get("role"):
        yield ("selinux", "high", "SELinux is set to what isn't allowed", "leave it out", f"{where}.seLinuxOptions")
    if _map(security.get("appArmorProfile")).get("type") == "Unconfined":
        yield ("apparmor", "high", "AppArmor is off", "use RuntimeDefault", f"{where}.appArmorProfile")
    if _map(security.get("windowsOptions")).get("hostProcess"):
        yield (
            "host-process",
            "critical",
            "it is a process of the host",
            "leave hostProcess out",
            f"{where}.windowsOptions",
        )
    if _map(security.get("seccompProfile")).get("type") == "Unconfined":
        yield ("seccomp", "high", "system calls aren't filtered", "use RuntimeDefault", f"{where}.seccompProfile")
    if security.get("runAsUser") == 0:
        yield ("root", "high", "it runs as root", "name another user", f"{where}.runAsUser")


def _container(container: Json, pod: Json, kind: str) -> Iterator[Rule]:
    own, where = _map(container.get("securityContext")), "securityContext"
    yield from _shared(own, where)
    if own.get("privileged"):
        yield (
            "privileged",
            "critical",
            "it is privileged: the node is its own",
            "leave privileged out",
            f"{where}.privileged",
        )
    if own.get("allowPrivilegeEscalation") is not False:
        step = "say allowPrivilegeEscalation: false"
        yield (
            "privilege-escalation",
            "high",
            "a program of it may gain rights",
            step,
            f"{where}.allowPrivilegeEscalation",
        )
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield (
            "non-root",
            "high",
            "nothing keeps it from running as root",
            "say runAsNonRoot: true",
            f"{where}.runAsNonRoot",
        )
    profile = _map(own.get("seccompProfile")) or _map(pod.get("seccompProfile"))
    if profile.get("type") not in ("RuntimeDefault", "Localhost", "Unconfined"):
        yield (
            "seccomp",
            "high",
            "system calls aren't filtered",
            "say seccompProfile: RuntimeDefault",
            f"{where}.seccompProfile",
        )
    yield from _capabilities(_map(own.get("capabilities")), f"{where}.capabilities")
    if own.get("procMount", "Default") != "Default":
        yield ("proc-mount", "high", "the kernel's files aren't masked", "leave procMount out", f"{where}.procMount")
    for index, port in enumerate(_list(container.get("ports"))):
        if _map(port).get("hostPort"):
            yield ("host-port", "high", "it takes a port of the node", "leave hostPort out", f"ports[{index}].hostPort")
    if own.get("readOnlyRootFilesystem") is not True:
        step = "say readOnlyRootFilesystem: true, and mount what it writes to"
        yield ("writable-root", "medium", "it can change its own programs", step, f"{where}.readOnlyRootFilesystem")
    yield from _image(str(container.get("image", "")))
    if kind == "containers":
        limits = _map(_map(container.get("resources")).get("limits"))
        if "memory" not in limits:
            yield (
                "memory-limit",
                "medium",
                "its memory has no bound",
                "set resources.limits.memory",
                "resources.limits",
            )


def _capabilities(capabilities: Json, where: str) -> Iterator[Rule]:
    added = [str(one).upper().removeprefix("CAP_") for one in _list(capabilities.get("add"))]
    if worse := [one for one in added if one not in CAPABILITIES]:
        yield (
            "capabilities",
            "critical",
            f"it has rights of the node ({', '.join(worse)})",
            "leave them out",
            f"{where}.add",
        )
    elif more := [one for one in added if one != "NET_BIND_SERVICE"]:
        yield (
            "capabilities",
            "high",
            f"it has rights that it hasn't dropped ({', '.join(more)})",
            "leave them out",
            f"{where}.add",
        )
    if "ALL" not in (str(one).upper() for one in _list(capabilities.get("drop"))):
        yield ("capabilities-drop", "high", "it keeps rights of root", "drop ALL", f"{where}.drop")


def _image(image: str) -> Iterator[Rule]:
    found = parse_image(image)
    if found is not None and found.digest is not None:
        return
    if found is None or found.tag in (None, "latest"):
        yield (
            "image-tag",
            "medium",
            f"the image {image[:100]!r} may be another one any day",
            "name it by digest",
            "image",
        )
    else:
        yield (
            "image-tag",
            "low",
            f"the image {image[:100]!r} is named by a tag, which can be moved",
            "name it by digest",
            "image",
        )


def _map(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _finding(rule: str, severity: Severity, message: str, step: str, field: str, file: str) -> Result:
    return found("containers", rule, severity, message, next_step=step, place=Place(file=file, field=field))
