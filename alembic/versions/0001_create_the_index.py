"""Create the index."""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "patients",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("identity", TEXT, nullable=False),
        sa.Column("patient_id", TEXT, nullable=False),
        sa.Column("issuer_of_patient_id", TEXT, nullable=False),
        sa.Column("patient_name", TEXT, nullable=False),
        sa.Column("patient_name_alphabetic_folded", TEXT, nullable=False),
        sa.Column("patient_name_ideographic_folded", TEXT, nullable=False),
        sa.Column("patient_name_phonetic_folded", TEXT, nullable=False),
        sa.Column("patient_birth_date", TEXT, nullable=False),
        sa.Column("patient_birth_date_folded", TEXT, nullable=False),
        sa.Column("patient_sex", TEXT, nullable=False),
        sa.Column("specific_character_set", TEXT, nullable=False),
        sa.UniqueConstraint("identity"),
    )
    op.create_index("ix_patients_name_alphabetic", "patients", ["patient_name_alphabetic_folded"])
    op.create_index("ix_patients_name_ideographic", "patients", ["patient_name_ideographic_folded"])
    op.create_index("ix_patients_name_phonetic", "patients", ["patient_name_phonetic_folded"])
    op.create_index("ix_patients_patient_birth_date_folded", "patients", ["patient_birth_date_folded"])
    op.create_index("ix_patients_patient_id", "patients", ["patient_id"])
    op.create_table(
        "studies",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("patient_pk", ROW_ID, sa.ForeignKey("patients.id"), nullable=False),
        sa.Column("study_instance_uid", TEXT, nullable=False),
        sa.Column("study_date", TEXT, nullable=False),
        sa.Column("study_date_folded", TEXT, nullable=False),
        sa.Column("study_time", TEXT, nullable=False),
        sa.Column("study_time_folded", TEXT, nullable=False),
        sa.Column("accession_number", TEXT, nullable=False),
        sa.Column("study_id", TEXT, nullable=False),
        sa.Column("study_description", TEXT, nullable=False),
        sa.Column("referring_physician_name", TEXT, nullable=False),
        sa.Column("referring_physician_name_alphabetic_folded", TEXT, nullable=False),
        sa.Column("referring_physician_name_ideographic_folded", TEXT, nullable=False),
        sa.Column("referring_physician_name_phonetic_folded", TEXT, nullable=False),
        sa.Column("specific_character_set", TEXT, nullable=False),
        sa.UniqueConstraint("study_instance_uid"),
    )
    op.create_index("ix_studies_accession_number", "studies", ["accession_number"])
    op.create_index("ix_studies_patient_pk", "studies", ["patient_pk"])
    op.create_index("ix_studies_study_date_folded", "studies", ["study_date_folded"])
    op.create_index("ix_studies_study_id", "studies", ["study_id"])
    op.create_table(
        "series",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("study_pk", ROW_ID, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("series_instance_uid", TEXT, nullable=False),
        sa.Column("modality", TEXT, nullable=False),
        sa.Column("series_number", sa.BigInteger()),
        sa.Column("series_description", TEXT, nullable=False),
        sa.Column("body_part_examined", TEXT, nullable=False),
        sa.Column("laterality", TEXT, nullable=False),
        sa.Column("performed_procedure_step_start_date", TEXT, nullable=False),
        sa.Column("performed_procedure_step_start_date_folded", TEXT, nullable=False),
        sa.Column("performed_procedure_step_start_time", TEXT, nullable=False),
        sa.Column("performed_procedure_step_start_time_folded", TEXT, nullable=False),
        sa.Column("specific_character_set", TEXT, nullable=False),
        sa.UniqueConstraint("study_pk", "series_instance_uid"),
    )
    op.create_index("ix_series_series_instance_uid", "series", ["series_instance_uid"])
    op.create_table(
        "containers",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("codecs", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("verified_at", TIME, nullable=False),
        sa.UniqueConstraint("key"),
    )
    op.create_table(
        "instances",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("series_pk", ROW_ID, sa.ForeignKey("series.id"), nullable=False),
        sa.Column("sop_instance_uid", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("sop_class_uid", TEXT, nullable=False),
        sa.Column("transfer_syntax_uid", TEXT, nullable=False),
        sa.Column("instance_number", sa.BigInteger()),
        sa.Column("rows", sa.BigInteger()),
        sa.Column("columns", sa.BigInteger()),
        sa.Column("number_of_frames", sa.BigInteger()),
        sa.Column("content_date", TEXT, nullable=False),
        sa.Column("content_date_folded", TEXT, nullable=False),
        sa.Column("content_time", TEXT, nullable=False),
        sa.Column("content_time_folded", TEXT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("dataset_bytes", sa.BigInteger(), nullable=False),
        sa.Column("dataset_offset", sa.BigInteger(), nullable=False),
        sa.Column("sender_ae_title", TEXT, nullable=False),
        sa.Column("sender_address", TEXT, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("last_read_at", TIME, nullable=False),
        sa.Column("spool_name", TEXT),
        sa.Column("container_pk", ROW_ID, sa.ForeignKey("containers.id")),
        sa.Column("container_entry", sa.BigInteger()),
        sa.Column("stored_bytes", sa.BigInteger()),
        sa.UniqueConstraint("sop_instance_uid", "revision"),
        sa.UniqueConstraint("spool_name"),
    )
    op.create_index(
        "ix_instances_cached",
        "instances",
        ["last_read_at"],
        sqlite_where=sa.text("spool_name IS NOT NULL AND state = 'archived'"),
        postgresql_where=sa.text("spool_name IS NOT NULL AND state = 'archived'"),
    )
    op.create_index("ix_instances_container_pk", "instances", ["container_pk"])
    op.create_index(
        "ix_instances_exceptional",
        "instances",
        ["state"],
        sqlite_where=sa.text("state IN ('as_received', 'quarantined')"),
        postgresql_where=sa.text("state IN ('as_received', 'quarantined')"),
    )
    op.create_index("ix_instances_series", "instances", ["series_pk", "current", "state"])
    op.create_table(
        "jobs",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("series_pk", ROW_ID, sa.ForeignKey("series.id")),
        sa.Column("queue", TEXT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("not_before", TIME, nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", TEXT),
        sa.Column("lease_until", TIME),
        sa.Column("sent_at", TIME),
        sa.Column("error", TEXT),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
    )
    op.create_index("ix_jobs_due", "jobs", ["state", "not_before"])
    op.create_index(
        "ux_jobs_open",
        "jobs",
        ["series_pk", "kind", "state"],
        unique=True,
        sqlite_where=sa.text("state IN ('waiting', 'running')"),
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )
    op.create_table(
        "audit_events",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("sop_instance_uid", TEXT),
        sa.Column("peer", TEXT),
        sa.Column("detail", TEXT, nullable=False),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at"])
    op.create_index("ix_audit_events_kind", "audit_events", ["kind"])
    op.create_index("ix_audit_events_sop_instance_uid", "audit_events", ["sop_instance_uid"])


def downgrade() -> None:
    op.drop_table("audit_events")
    op.drop_table("jobs")
    op.drop_table("instances")
    op.drop_table("containers")
    op.drop_table("series")
    op.drop_table("studies")
    op.drop_table("patients")
