"""Keep of each study how it describes its patient, and of each object by which description it came.

What is there already is described as its patient is; `thinfilm reindex` reads it out of the objects.
"""

import hashlib

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

DESCRIPTION = (
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_name_alphabetic_folded",
    "patient_name_ideographic_folded",
    "patient_name_phonetic_folded",
    "patient_birth_date",
    "patient_birth_date_folded",
    "patient_sex",
    "specific_character_set",
)
ROWS_AT_A_TIME = 1000


def upgrade() -> None:
    op.create_table(
        "study_patients",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("study_pk", ROW_ID, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("patient_pk", ROW_ID, sa.ForeignKey("patients.id"), nullable=False),
        sa.Column("identity", TEXT, nullable=False),
        *[sa.Column(name, TEXT, nullable=False) for name in DESCRIPTION],
        sa.UniqueConstraint("study_pk", "identity"),
    )
    # In plain SQL, since Alembic would copy the whole table on SQLite.
    number = "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
    op.execute(f"ALTER TABLE instances ADD COLUMN study_patient_pk {number} REFERENCES study_patients (id)")
    _describe_as_before(op.get_bind())
    for index, column in (
        ("ix_study_patients_patient_pk", "patient_pk"),
        ("ix_study_patients_patient_id", "patient_id"),
        ("ix_study_patients_name_alphabetic", "patient_name_alphabetic_folded"),
        ("ix_study_patients_name_ideographic", "patient_name_ideographic_folded"),
        ("ix_study_patients_name_phonetic", "patient_name_phonetic_folded"),
        ("ix_study_patients_patient_birth_date_folded", "patient_birth_date_folded"),
    ):
        op.create_index(index, "study_patients", [column])
    op.drop_index("ix_studies_patient_pk", "studies")
    with op.batch_alter_table("studies") as studies:  # on SQLite, a copy
        studies.drop_column("patient_pk")


def _describe_as_before(connection: sa.Connection) -> None:
    names = ", ".join(DESCRIPTION)
    chosen = ", ".join(f"p.{name}" for name in DESCRIPTION)
    given = ", ".join(f":{name}" for name in DESCRIPTION)
    insert = sa.text(
        f"INSERT INTO study_patients (study_pk, patient_pk, identity, {names}) "  # noqa: S608
        f"VALUES (:study_pk, :patient_pk, :identity, {given})"
    )
    page = sa.text(
        f"SELECT s.id AS study_pk, p.id AS patient_pk, p.identity AS identity, {chosen} "  # noqa: S608
        f"FROM studies s JOIN patients p ON p.id = s.patient_pk WHERE s.id > :last ORDER BY s.id LIMIT {ROWS_AT_A_TIME}"
    )
    last = 0
    while rows := [dict(row) for row in connection.execute(page, {"last": last}).mappings()]:
        last = rows[-1]["study_pk"]
        connection.execute(insert, [row | {"identity": _identity(row)} for row in rows])
    connection.execute(
        sa.text(
            "UPDATE instances SET study_patient_pk = (SELECT sp.id FROM series JOIN study_patients sp "
            "ON sp.study_pk = series.study_pk WHERE series.id = instances.series_pk)"
        )
    )


def _identity(row: dict[str, str]) -> str:
    parts = (row["identity"], row["patient_name"], row["patient_birth_date"], row["patient_sex"])
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def downgrade() -> None:
    with op.batch_alter_table("studies") as studies:
        studies.add_column(sa.Column("patient_pk", ROW_ID))
    op.execute(
        "UPDATE studies SET patient_pk = (SELECT patient_pk FROM study_patients "
        "WHERE id = (SELECT min(id) FROM study_patients WHERE study_pk = studies.id))"
    )
    with op.batch_alter_table("studies") as studies:
        studies.alter_column("patient_pk", nullable=False)
        studies.create_foreign_key("studies_patient_pk_fkey", "patients", ["patient_pk"], ["id"])
    op.create_index("ix_studies_patient_pk", "studies", ["patient_pk"])
    with op.batch_alter_table("instances") as instances:
        instances.drop_column("study_patient_pk")
    op.drop_table("study_patients")
