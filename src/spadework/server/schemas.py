"""What the service sends and takes, as pydantic models: its OpenAPI description is made from them, and tests hold the service to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

MOST_NOTE = 2000
Kind = Literal["normal", "defect"]
Verdict = Literal["normal", "anomalous", "no threshold"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Box = Annotated[
    list[int], Field(min_length=4, max_length=4, description="y0, x0, y1, x1 in pixels, the ends exclusive")
]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]  # databases do not take NUL


class Strict(BaseModel):
    """What comes from a client: nothing but what is named."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(BaseModel):
    """What went wrong: `code` for programs, the rest for people."""

    code: str
    message: str
    hint: str | None


class Error(BaseModel):
    """Every answer that is no success."""

    error: ErrorBody


class Region(BaseModel):
    """A connected place of the map above the threshold."""

    box: Box
    area: int
    peak: Annotated[list[int], Field(min_length=2, max_length=2, description="y, x")]
    score: float
    polygons: list[list[Annotated[list[float], Field(min_length=2, max_length=2, description="x, y")]]]


class Nearest(BaseModel):
    """A normal picture near to this one."""

    name: str
    distance: float


class Decision(BaseModel):
    """What a person said of an inspection. Nothing is overwritten: undoing sets `undone_at` once."""

    id: int
    inspection_id: int
    kind: Kind
    who: str
    at: AwareDatetime
    note: str
    model: str
    model_hash: str
    threshold: float | None
    appended: bool = Field(description="whether the picture was added to the model")
    undone_at: AwareDatetime | None
    undone_by: str | None
    withdrawn: bool = Field(description="whether the picture was taken out of the model again")


class Decided(Decision):
    """A decision that was just made; of "normal", also what the model, which knows the picture now, says of it."""

    passes: bool | None = Field(description="whether it is no alarm any more; null where that says nothing")
    score_now: float | None
    verdict_now: Verdict | None
    model_hash_now: str | None
    seconds: float | None = Field(description="until the model knew it")


class Inspection(BaseModel):
    """One picture, inspected once."""

    id: int
    at: AwareDatetime
    model: str
    model_hash: str
    backbone_hash: str | None
    detector: str
    name: str
    source: Literal["upload", "camera", "watch"]
    who: str
    picture: Sha256
    media_type: str
    height: int
    width: int
    score: float
    threshold: float | None
    map_threshold: float | None
    verdict: Verdict
    regions: list[Region]
    nearest: list[Nearest]
    nearest_distance: float | None
    timings: dict[str, float] = Field(description="seconds of decode, wait and inspect")
    evidence: str | None
    decision: Decision | None
    files_removed_at: AwareDatetime | None


class InspectionList(BaseModel):
    """A page of the history. `cursor`: pass it on for the next; null at the end."""

    items: list[Inspection]
    cursor: str | None
    total: int | None


class DecisionList(BaseModel):
    """All that was said of an inspection, also what was undone."""

    items: list[Decision]


class NewDecision(Strict):
    """What a person says. "normal" also adds the picture to the model."""

    kind: Kind
    note: Annotated[Text, Field(max_length=MOST_NOTE)] = ""


class MatchedNormal(BaseModel):
    """The normal picture that a place was compared with."""

    name: str
    hash: Sha256
    added_by: str | None
    added_at: AwareDatetime | None
    removed: bool = Field(description="whether it was taken out of the model since")


class Match(BaseModel):
    """The normal place that a place of a picture was compared with. `here` and `there`: both patches as data URIs; null once gone."""

    normal: MatchedNormal
    box: Box
    distance: float
    here_box: Box
    here: str | None
    there: str | None


class Threshold(BaseModel):
    """A threshold, and what it promises of normal pictures; `value` is null where too few were learnt."""

    value: float | None
    asked: float
    promised: float | None
    n: int = Field(description="on how many normal pictures it rests")
    text: str


class ModelInfo(BaseModel):
    """A model that is served."""

    name: str
    detector: str
    model_hash: str
    backbone_hash: str | None
    settings: dict[str, Any]
    max_false_alarms: float
    threshold: Threshold
    map_threshold: Threshold
    n_normal: int
    can_append: bool
    can_explain: bool
    localises: bool


class ModelList(BaseModel):
    """The models that are served."""

    items: list[ModelInfo]


class NewThreshold(Strict):
    """How many normal pictures may be called anomalous: the threshold follows from it."""

    max_false_alarms: Annotated[float, Field(ge=1e-6, lt=1)]


class Normal(BaseModel):
    """A normal picture in a model. Who added it, and when, is null for those it was fitted with.

    score: when it was left out to set the threshold, if it was. inspection_id: of which it was said to be normal, if so it came.
    """

    name: str
    hash: Sha256
    size: Annotated[list[int], Field(min_length=2, max_length=2, description="height, width")]
    score: float | None
    added_by: str | None
    added_at: AwareDatetime | None
    inspection_id: int | None


class NormalList(BaseModel):
    """Some of a model's normal pictures."""

    items: list[Normal]
    offset: int
    total: int


class NewNormal(BaseModel):
    """The hash of a picture's pixels, by which a model knows it."""

    hash: Sha256


class Part(BaseModel):
    """What a model saw in a part of a time. quantiles: of the scores, by "0.05", "0.25", ...; null where nothing was seen."""

    from_: AwareDatetime = Field(alias="from")
    to: AwareDatetime
    count: int
    anomalous: int
    quantiles: dict[str, float] | None
    histogram: list[int] = Field(description="how many scores lie between each two of the series' edges")
    nearest_distance: float | None = Field(description="mean distance of the nearest normal picture")


class Series(BaseModel):
    """What a model saw over time; `edges`: of all histograms."""

    edges: list[float]
    items: list[Part]


class Scores(BaseModel):
    """The latest scores, newest first."""

    scores: list[float]


class Change(BaseModel):
    """A change of a model."""

    id: int
    at: AwareDatetime
    model: str
    who: str
    what: Literal["append", "remove", "threshold", "reload"]
    model_hash_before: str
    model_hash_after: str
    pictures: list[str]
    inspection_id: int | None
    detail: dict[str, Any]


class ChangeList(BaseModel):
    """A page of changes, newest first."""

    items: list[Change]
    cursor: str | None


class Session(BaseModel):
    """Who asks. `csrf`: what the header X-CSRF-Token must hold in unsafe requests of a session; null where none is needed."""

    who: str
    role: Literal["inspect", "decide", "manage"]
    csrf: str | None


class NewSession(Strict):
    """A token to sign in with."""

    token: Annotated[str, Field(min_length=1, max_length=1000)]


class Health(BaseModel):
    """Whether the service is alive."""

    status: Literal["alive"]


class Readiness(BaseModel):
    """Whether the service takes inspections."""

    status: Literal["ready"]
