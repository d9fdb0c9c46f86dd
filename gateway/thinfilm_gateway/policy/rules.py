"""The rules of the settings by which images are kept lossily, some time after they came."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from thinfilm_gateway.policy import ceilings
from thinfilm_gateway.policy.ceilings import LosslessOnly

Serve = Literal["derived", "failure"]
Days = Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)]  # a century: a date that far away is still one


class LossyRule(BaseModel):
    """One rule: which images, by which codec, within what, and when.

    A rule that asks for what no ceiling allows is refused: it would never be a rule for anything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: str = Field(min_length=1)
    body_part: str | None = Field(None, min_length=1)
    codec: str = "near_lossless"
    profile: str = ceilings.DEFAULT_PROFILE
    max_error: int | None = Field(None, ge=1)
    ratio: float | None = Field(None, gt=1)
    delay_days: Days
    keep_original_days: Days
    declared_retention: bool = False
    serve: Serve = "derived"

    @property
    def images(self) -> str:
        """Which images the rule is for, as people read it."""
        return " ".join(filter(None, (self.modality, self.body_part)))

    @field_validator("body_part")
    @classmethod
    def _as_dicom_has_it(cls, value: str | None) -> str | None:
        return value and value.upper()

    @model_validator(mode="after")
    def _is_below_the_ceiling(self) -> "LossyRule":
        from thinfilm_codecs import registry  # here, since most commands never need a codec

        if self.codec not in registry.lossy_names():
            known = ", ".join(registry.lossy_names())
            raise ValueError(f"no lossy codec is called {self.codec!r}; choose among {known}")
        try:
            profile = ceilings.profile(self.profile)
        except ceilings.UnknownProfile as error:
            raise ValueError(str(error)) from None
        ceiling = profile.ceiling(self.modality, self.body_part or "")
        if isinstance(ceiling, LosslessOnly):
            raise ValueError(f"a lossy rule for modality {self.modality} cannot be: {ceiling.reason}")
        if self.ratio is not None and self.ratio > ceiling.ratio:
            raise ValueError(
                f"a ratio of {self.ratio:g} is above the ceiling of {ceiling.ratio:g} that {self.profile} has for"
                f" {self.images}"
            )
        return self


def check_order(rules: Sequence[LossyRule]) -> None:
    """Raise ValueError for a rule that never holds, since an earlier one does for all of its images."""
    for number, rule in enumerate(rules):
        earlier = matching_rule(rules[:number], rule.modality, rule.body_part or "")
        if earlier is not None:
            raise ValueError(
                f"rule {number + 1}, for {rule.images}, never holds, since an earlier one is for {earlier.images}"
            )


def matching_rule(rules: Sequence[LossyRule], modality: str, body_part: str) -> LossyRule | None:
    """Return the first rule for images of this kind; None if there is none."""
    for rule in rules:
        if rule.modality == modality and rule.body_part in (None, body_part):
            return rule
    return None
