"""What a pickle may name: an allowlist, since nobody can list all that does harm.

A pickle is a program: what it names it can call. Only what makes plain data is allowed. Whatever else a model needs (an
estimator's class) the operator allows by its full name (`scanning.pickle_globals`); a whole package can't be, because
one of its functions is enough. The list of what is known to do harm only says how bad a finding is.
"""

from collections.abc import Collection

_BUILTINS = (
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range", "set"),
    *("slice", "str", "tuple"),
)
_NUMPY = (
    *("ndarray", "dtype", "matrix", "recarray", "bool_", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16"),
    *("uint32", "uint64", "float16", "float32", "float64", "longdouble", "complex64", "complex128", "str_", "bytes_"),
    *("void", "datetime64", "timedelta64"),
)
_STORAGES = (
    *("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "ComplexFloat"),
    *("ComplexDouble", "Untyped"),
)
_TORCH = (
    *("float", "float16", "float32", "float64", "double", "half", "bfloat16", "int", "int8", "int16", "int32", "int64"),
    *("long", "short", "uint8", "bool", "complex64", "complex128", "Size", "device", "Tensor"),
)

ALLOWED: frozenset[str] = frozenset(
    [
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS),
        *(f"numpy.{name}" for name in _NUMPY),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
        *(f"torch.{name}Storage" for name in _STORAGES),
        *(f"torch.{name}" for name in _TORCH),
        "torch.storage.UntypedStorage",
        "torch.nn.parameter.Parameter",
        *(f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "parameter", "parameter_with_state")),
        "joblib.numpy_pickle.NumpyArrayWrapper",
        *(f"collections.{name}" for name in ("OrderedDict", "defaultdict", "deque", "Counter")),
        *(f"datetime.{name}" for name in ("date", "time", "datetime", "timedelta", "timezone")),
        "copyreg._reconstructor",
        "copy_reg._reconstructor",
        "_codecs.encode",
        "decimal.Decimal",
        "fractions.Fraction",
        "uuid.UUID",
        *(f"pathlib.{name}" for name in ("PurePosixPath", "PosixPath", "PureWindowsPath")),
    ]
)

_HARMFUL_MODULES = frozenset(
    [
        "os",
        "posix",
        "nt",
        "sys",
        "subprocess",
        "pty",
        "commands",
        "runpy",
        "importlib",
        "imp",
        "pkgutil",
        "zipimport",
        "code",
        "codeop",
        "bdb",
        "pdb",
        "cProfile",
        "profile",
        "timeit",
        "trace",
        "doctest",
        "unittest",
        "ctypes",
        "_ctypes",
        "marshal",
        "pickle",
        "_pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "types",
        "functools",
        "operator",
        "_operator",
        "itertools",
        "socket",
        "ssl",
        "http",
        "urllib",
        "urllib2",
        "httplib",
        "requests",
        "aiohttp",
        "httpx",
        "webbrowser",
        "ftplib",
        "smtplib",
        "telnetlib",
        "asyncio",
        "multiprocessing",
        "threading",
        "_thread",
        "concurrent",
        "shutil",
        "tempfile",
        "glob",
        "io",
        "builtins",
        "__builtin__",
        "pip",
        "ensurepip",
        "venv",
        "setuptools",
        "distutils",
        "idlelib",
        "lib2to3",
        "site",
        "sysconfig",
        "platform",
        "signal",
        "gc",
        "inspect",
        "atexit",
        "logging",
        "xmlrpc",
        "sqlite3",
        "torch",
        "numpy",
        "joblib",
        "pandas",
        "nt",
        "posixpath",
        "ntpath",
    ]
)


def is_allowed(module: str, name: str, more: Collection[str] = ()) -> bool:
    """Whether a pickle may name it."""
    full = f"{module}.{name}"
    return full in ALLOWED or full in more


def is_harmful(module: str) -> bool:
    """Whether its module is known for what runs code, reaches the network or the disk."""
    return module.partition(".")[0] in _HARMFUL_MODULES
