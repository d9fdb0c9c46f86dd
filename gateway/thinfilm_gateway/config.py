"""The settings: one TOML file for every process, each key also as THINFILM_<KEY> in the environment, which wins."""

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from thinfilm_gateway.dicom.budget import DECODE_BUDGET_BYTES
from thinfilm_gateway.policy.rules import LossyRule, check_order

AETitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")
]
Port = Annotated[int, Field(ge=0, le=65535)]
Operation = Literal["echo", "store", "find", "get", "move", "commit"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
Duplicates = Literal["keep-first", "version", "reject"]
CommitmentDepth = Literal["index", "object", "checksum"]

MIB = 1024 * 1024
GIB = 1024 * MIB
DAY_SECONDS = 86400
MOST_PROCESSES = 1024
LARGEST_PDU_BYTES = 2**32 - 1
"""What fits the field that negotiates it (PS3.8 D.1)."""

ENVIRONMENT_PREFIX = "THINFILM_"
CONFIG_FILE_VARIABLE = "THINFILM_CONFIG"
"""Names the settings file of every process that is not given one by --config."""
ENVIRONMENT_OF_TESTS = frozenset({"THINFILM_DATA"})  # a folder of DICOM files for `thinfilm demo` and the tests


class ConfigError(Exception):
    """A setting is wrong; the message is one sentence that names it."""


class Peer(BaseModel):
    """A DICOM application entity that the gateway knows; with a port, it is a C-MOVE destination."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: AETitle
    host: str | None = Field(None, min_length=1)
    port: int | None = Field(None, ge=1, le=65535)
    network: IPvAnyNetwork | None = None
    tls: bool = False
    certificate_subject: str | None = Field(None, min_length=1)
    allow: tuple[Operation, ...] = OPERATIONS

    @model_validator(mode="after")
    def _can_be_called(self) -> "Peer":
        if self.port is not None and self.host is None:
            raise ValueError("a peer with a port needs a host")
        return self


class Settings(BaseSettings):
    """All settings, with their defaults for an embedded gateway.

    Made by `load`; made directly, only the values given count, neither file nor environment.
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True)

    ae_title: AETitle = Field("THINFILM", description="Application entity title of the gateway.")
    data_dir: Path = Field(
        Path("thinfilm-data"), description="Folder of the spool, the archive and the embedded index."
    )
    database_url: str = Field(
        "",
        description="SQLAlchemy URL of the index; empty means SQLite in data_dir. postgresql+psycopg://user@host/name",
    )
    broker_url: str = Field("", description="Celery broker, redis://host:6379/0; empty means local workers.")
    dicom_host: str = Field("0.0.0.0", description="Address on which associations are accepted.")  # noqa: S104
    dicom_port: Port = Field(11112, description="TCP port on which associations are accepted; 0 takes a free one.")
    dicom_tls_port: Port | None = Field(None, description="TCP port for associations over TLS; none without.")
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate of the gateway, and its chain."
    )
    tls_key: Path | None = Field(None, description="PEM file with the private key of that certificate.")
    tls_ca: Path | None = Field(None, description="PEM file with the authorities that peers' certificates come from.")
    tls_client_certificate: Literal["required", "optional", "none"] = Field(
        "required", description="Whether a peer that calls over TLS must show a certificate."
    )
    check_called_ae_title: bool = Field(True, description="Reject associations that call another title than ae_title.")
    unknown_peers: Literal["loopback", "all", "none"] = Field(
        "loopback", description="Who may call without being among the peers."
    )
    http_host: str = Field("127.0.0.1", description="Address of the health page.")
    http_port: Port = Field(8080, description="TCP port of the health page; 0 takes a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged; debug may show patient data."
    )
    receivers: int = Field(2, ge=1, le=MOST_PROCESSES, description="Receiver processes that share dicom_port.")
    maximum_associations: int = Field(128, ge=1, description="Associations a receiver process serves at a time.")
    maximum_associations_per_host: int = Field(48, ge=1, description="Those of them that may come from one address.")
    maximum_pdu_bytes: int = Field(
        MIB, ge=16384, le=LARGEST_PDU_BYTES, description="Largest P-DATA PDU that peers may send."
    )
    network_timeout_seconds: float = Field(
        60.0,
        gt=0,
        le=DAY_SECONDS,
        allow_inf_nan=False,
        description="An association silent for so long is aborted.",
    )
    duplicates: Duplicates = Field(
        "keep-first", description="What becomes of other content under a SOP Instance UID that is there already."
    )
    maximum_revisions: int = Field(
        100, ge=1, description="Contents that are kept under one SOP Instance UID; a further one is answered A900."
    )
    commitment_depth: CommitmentDepth = Field(
        "object", description="How closely an object is looked at before storage commitment is given for it."
    )
    large_object_bytes: int = Field(
        64 * MIB, ge=MIB, description="A data set above this size is handled in chunks on disk, never whole in memory."
    )
    minimum_free_bytes: int = Field(GIB, ge=0, description="With less free space under data_dir, C-STORE answers A700.")
    warning_free_bytes: int = Field(
        5 * GIB, ge=0, description="With less free space for spool or archive, log and health page warn."
    )
    spool_quota_bytes: int | None = Field(
        None, gt=0, description="Once the spool takes so many bytes, C-STORE answers A700; none without."
    )
    archive_quota_bytes: int | None = Field(
        None, gt=0, description="Once the containers take so many bytes, nothing more is compressed; none without."
    )
    series_quiet_seconds: float = Field(
        30.0,
        ge=0,
        le=3650 * DAY_SECONDS,
        allow_inf_nan=False,
        description="A series quiet for so long is compressed.",
    )
    local_workers: int = Field(
        2, ge=0, le=MOST_PROCESSES, description="Processes of the local worker; only without broker_url."
    )
    lossless_codecs: Annotated[tuple[str, ...], NoDecode] = Field(
        ("neural", "jpegxl", "jpegls", "htj2k"),
        description="Codecs that are measured for each series; the smallest is kept.",
    )
    lossless_preset: Literal["fast", "default", "max"] = Field(
        "default", description="How hard codecs try that can try harder, the neural one, on CPUs."
    )
    gpu_workers: bool = Field(
        False,
        description="Send compression to the workers with a GPU, which try hardest; only with broker_url.",
    )
    backlog_jobs: int = Field(
        100, ge=1, description="While more jobs than this are due, compression tries less hard, to catch up."
    )
    max_attempts: int = Field(
        3, ge=1, description="A job that failed so often is left; its instances stay as received."
    )
    job_lease_seconds: float = Field(
        900.0, gt=0, le=DAY_SECONDS, allow_inf_nan=False, description="A worker silent for so long has lost its job."
    )
    scrub_days: int = Field(
        30, ge=1, le=3650, description="All that is kept is read and compared once in so many days, by itself."
    )
    cache_bytes: int = Field(
        10 * GIB, ge=0, description="Spool copies of compressed instances kept for fast retrieval."
    )
    decoded_cache_bytes: int = Field(256 * MIB, ge=0, description="Decoded frames a receiver process keeps in memory.")
    decode_budget_bytes: int = Field(
        DECODE_BUDGET_BYTES,
        ge=MIB,
        description="Memory that decoders take at a time in a process; what needs more waits.",
    )
    move_associations: int = Field(2, ge=1, description="Parallel associations to a C-MOVE destination.")
    peers: tuple[Peer, ...] = Field((), description="Known peers, and what each may ask for.")
    lossy: tuple[LossyRule, ...] = Field(
        (), description="Rules by which archived images are kept lossily after some time; none without."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the values given, nothing else: `load` brings file and environment in their order."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator("lossless_codecs", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Read `jpegxl,jpegls`, as the environment has it."""
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("lossless_codecs")
    @classmethod
    def _has_a_codec(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("it names at least one codec")
        return value

    @field_validator("data_dir", mode="before")
    @classmethod
    def _is_a_folder(cls, value: Any) -> Any:
        """Refuse an empty name, which would be the folder that the gateway happens to be started in."""
        if value == "":
            raise ValueError("it names a folder")
        return value

    @model_validator(mode="after")
    def _has_a_port_for_each_listener(self) -> "Settings":
        """Refuse a port with two uses: receivers share theirs, so that the system would not."""
        used: dict[int, str] = {}
        for key in ("dicom_port", "dicom_tls_port", "http_port"):
            port = getattr(self, key)
            if port and port in used:
                raise ValueError(f"{used[port]} and {key} are both {port}; give each a port of its own")
            used[port] = key
        return self

    @model_validator(mode="after")
    def _reaches_its_workers(self) -> "Settings":
        if self.gpu_workers and not self.broker_url:
            raise ValueError("gpu_workers needs a broker_url, by which they are reached")
        return self

    @field_validator("lossy")
    @classmethod
    def _can_hold(cls, value: tuple[LossyRule, ...]) -> tuple[LossyRule, ...]:
        check_order(value)
        return value

    @property
    def index_url(self) -> str:
        """SQLAlchemy URL of the index."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'index.sqlite'}"

    @property
    def spool_dir(self) -> Path:
        """Folder of the objects as received."""
        return self.data_dir / "spool"

    @property
    def archive_dir(self) -> Path:
        """Folder of the containers."""
        return self.data_dir / "archive"

    def to_environment(self) -> dict[str, str]:
        """Return the environment variables from which a child process loads these same settings.

        What was left to its default is left out: whether a codec was named makes a difference.
        """
        values = self.model_dump(mode="json", exclude_unset=True)
        given = {key: value for key, value in values.items() if value is not None}
        return {ENVIRONMENT_PREFIX + key.upper(): _to_text(key, value) for key, value in given.items()}


def load(file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings; `overrides` that are not None win over environment and file.

    Without `file`, the one that THINFILM_CONFIG names is read. Raises ConfigError for an unreadable file, an unknown
    key or a value out of range.
    """
    file = file or file_of_environment()
    given = {key: value for key, value in overrides.items() if value is not None}
    from_file = _read(file) if file else {}
    from_environment = _environment()
    try:
        return Settings(**(from_file | from_environment | given))
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # about settings that do not go together, each maybe from elsewhere
            raise ConfigError(f"The settings are wrong: {_message(first)}.") from None
        key = str(first["loc"][0])
        origin = (
            "on the command line" if key in given
            else f"in the environment variable {ENVIRONMENT_PREFIX}{key.upper()}" if key in from_environment
            else f"in {file}"
        )  # fmt: skip
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"The setting {place} {origin} is wrong: {_complaint(first)}.") from None


_TABLES = {"peers": ("peer", "ae_title"), "lossy": ("lossy rule", "modality")}
"""Settings that are lists of tables: what one of them is called, and a key that it must have."""

_COMPLAINTS_ABOUT_TABLES = {
    "missing": "a {table} needs {key_with_article}",
    "extra_forbidden": "a {table} has no key {key}",
    "tuple_type": "it is a list of tables, each with {required}, not {value!r}",
    "model_type": "a {table} is a table with {required}, not {value!r}",
}
"""By pydantic's name of the error."""


def _complaint(error: Mapping[str, Any]) -> str:
    """Put pydantic's message into the middle of a sentence, with the value it is about."""
    kind, place = error["type"], error["loc"]
    message = _message(error)
    if place[0] in _TABLES and kind in _COMPLAINTS_ABOUT_TABLES:
        table, required = _TABLES[place[0]]
        return _COMPLAINTS_ABOUT_TABLES[kind].format(
            table=table,
            required=_with_article(required),
            key=place[-1],
            key_with_article=_with_article(str(place[-1])),
            value=error["input"],
        )
    if place[0] in _TABLES and kind == "value_error":  # about the table as a whole, which need not be told
        return message
    return f"{message[0].lower()}{message[1:]}, not {error['input']!r}"


def _message(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).removeprefix("Value error, ").removesuffix(".")


def _with_article(key: str) -> str:
    return f"{'an' if key.startswith('a') else 'a'} {key}"


def _to_text(key: str, value: Any) -> str:
    """Write a value as the environment has it."""
    if key == "lossless_codecs":
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def file_of_environment() -> Path | None:
    """Return the settings file that the environment names. Raises ConfigError for one without a name."""
    name = os.environ.get(CONFIG_FILE_VARIABLE)
    if name == "":
        raise ConfigError(f"{CONFIG_FILE_VARIABLE} is empty; let it name the settings file, or unset it.")
    return Path(name) if name else None


def _read(file: Path) -> dict[str, Any]:
    """Return what the TOML file says. Raises ConfigError."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration file {file} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {file} is not TOML: {error}.") from None
    _refuse_unknown(document, Settings.model_fields, f"setting in {file}")
    for setting, fields in (("peers", Peer.model_fields), ("lossy", LossyRule.model_fields)):
        tables = document.get(setting)
        for table in tables if isinstance(tables, list) else ():
            if isinstance(table, dict):
                _refuse_unknown(table, fields, f"key of a {_TABLES[setting][0]} in {file}")
    return document


def _environment() -> dict[str, Any]:
    """Return what the environment variables say. Raises ConfigError."""
    known = {ENVIRONMENT_PREFIX + key.upper() for key in Settings.model_fields}
    known |= ENVIRONMENT_OF_TESTS | {CONFIG_FILE_VARIABLE}
    given = (name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX))
    _refuse_unknown((name.upper() for name in given), known, "environment variable")
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:  # of a setting that is read as JSON
        name = ENVIRONMENT_PREFIX + ("LOSSY" if "lossy" in str(error) else "PEERS")
        raise ConfigError(f"The environment variable {name} is not JSON.") from None


def _refuse_unknown(keys: Iterable[str], known: Iterable[str], what: str) -> None:
    known = list(known)
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"{key} is an unknown {what}{hint}.")
