"""The settings: one TOML file, each key also as THINFILM_<KEY> in the environment, which wins."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

AETitle = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")]
Port = Annotated[int, Field(ge=0, le=65535)]

MIB = 1024 * 1024
GIB = 1024 * MIB


class ConfigError(Exception):
    """A setting is wrong; the message is one sentence that names it."""


class Peer(BaseModel):
    """A DICOM application entity that the gateway knows; with a port, it is a C-MOVE destination."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: AETitle
    host: str
    port: Port | None = None
    allow: tuple[str, ...] = ("echo", "store", "find", "get", "move")


class Settings(BaseSettings):
    """All settings, with their defaults for an embedded gateway."""

    model_config = SettingsConfigDict(env_prefix="THINFILM_", extra="forbid", frozen=True)

    ae_title: AETitle = Field("THINFILM", description="Application entity title of the gateway.")
    data_dir: Path = Field(Path("thinfilm-data"), description="Folder of the spool, the archive and the embedded index.")
    database_url: str = Field(
        "", description="SQLAlchemy URL of the index; empty means SQLite in data_dir. postgresql+psycopg://user@host/name"
    )
    broker_url: str = Field("", description="Celery broker, redis://host:6379/0; empty means local workers.")
    dicom_host: str = Field("0.0.0.0", description="Address on which associations are accepted.")  # noqa: S104
    dicom_port: Port = Field(11112, description="TCP port on which associations are accepted.")
    http_port: Port = Field(8080, description="TCP port of the health page.")
    receivers: int = Field(2, ge=1, description="Receiver processes that share dicom_port.")
    maximum_associations: int = Field(64, ge=1, description="Associations a receiver process serves at a time.")
    maximum_pdu_bytes: int = Field(MIB, ge=16384, description="Largest P-DATA PDU that peers may send.")
    network_timeout_seconds: float = Field(60.0, gt=0, description="An association silent for so long is aborted.")
    large_object_bytes: int = Field(
        64 * MIB, ge=MIB, description="A data set above this size is handled in chunks on disk, never whole in memory."
    )
    minimum_free_bytes: int = Field(GIB, ge=0, description="With less free space under data_dir, C-STORE answers A700.")
    series_quiet_seconds: float = Field(30.0, ge=0, description="A series quiet for so long is compressed.")
    local_workers: int = Field(2, ge=0, description="Processes of the local worker; only without broker_url.")
    lossless_codecs: tuple[str, ...] = Field(
        ("jpegxl", "jpegls", "htj2k"), description="Codecs that are measured for each series; the smallest is kept."
    )
    max_attempts: int = Field(3, ge=1, description="A job that failed so often is left; its instances stay as received.")
    job_lease_seconds: float = Field(900.0, gt=0, description="A worker silent for so long has lost its job.")
    cache_bytes: int = Field(10 * GIB, ge=0, description="Spool copies of compressed instances kept for fast retrieval.")
    decoded_cache_bytes: int = Field(256 * MIB, ge=0, description="Decoded frames a receiver process keeps in memory.")
    move_associations: int = Field(2, ge=1, description="Parallel associations to a C-MOVE destination.")
    peers: tuple[Peer, ...] = Field((), description="Known peers; those with a port are C-MOVE destinations.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, cls._toml_file)

    _toml_file: Path | None = None

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


def load(file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings; `overrides` that are not None win over environment and file.

    Raises ConfigError for an unreadable file, an unknown key or a value out of range.
    """
