"""What a service for the exchange of identities is asked, and what it may answer: the messages, without the I/O.

The form is that of Kubernetes' reviews: a POST of an object with `spec`, answered with 200 and one with `status`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

from cluster_gateway_core.errors import AccessDeniedError
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.routing.identity_exchange import render_impersonation

if TYPE_CHECKING:
    from collections.abc import Mapping

API_VERSION: Final = "cluster.core.oam.dev/v1alpha1"
KIND: Final = "ClientIdentityReview"


class InvalidIdentityReviewError(ValueError):
    """The answer is not one of this contract; the message quotes nothing of it."""


def render_identity_review(user: UserInfo, *, rule_name: str, cluster_name: str) -> bytes:
    """Write the question: whom the cluster is to see when this user asks."""
    review = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "spec": {
            "cluster": cluster_name,
            "rule": rule_name,
            "user": {
                "username": user.username,
                "uid": user.uid,
                "groups": list(user.groups),
                "extra": {key: list(values) for key, values in user.extra},
            },
        },
    }
    return json.dumps(review, separators=(",", ":")).encode()


def parse_identity_review(content: bytes) -> UserInfo | None:
    """Read the answer.

    Returns:
        Whom the cluster is to see; None when the service says that the user may not be passed on.

    Raises:
        InvalidIdentityReviewError: It is no answer of this contract: only an unambiguous one counts.
    """
    try:
        review = _mapping(json.loads(content), "the answer")
    except (ValueError, RecursionError) as error:
        raise InvalidIdentityReviewError("the answer is no JSON object") from error
    if (review.get("apiVersion"), review.get("kind")) != (API_VERSION, KIND):
        raise InvalidIdentityReviewError(f"the answer is no {KIND} of {API_VERSION}")
    status = _mapping(review.get("status"), "status")
    allowed = status.get("allowed")
    if allowed is False:
        return None
    if allowed is not True:
        raise InvalidIdentityReviewError("status.allowed is neither true nor false")
    user = _parse_user(_mapping(status.get("user"), "status.user"))
    try:
        render_impersonation(user)
    except AccessDeniedError as error:
        raise InvalidIdentityReviewError("status.user holds what cannot be told to a cluster") from error
    return user


def _parse_user(user: Mapping[str, object]) -> UserInfo:
    if unknown := user.keys() - {"username", "uid", "groups", "extra"}:
        raise InvalidIdentityReviewError(f"status.user has {len(unknown)} unknown fields")
    username, uid = user.get("username"), user.get("uid", "")
    if not isinstance(username, str) or not username:
        raise InvalidIdentityReviewError("status.user has no username")
    if not isinstance(uid, str):
        raise InvalidIdentityReviewError("status.user.uid is no text")
    extra = _mapping(user.get("extra", {}), "status.user.extra")
    return UserInfo(
        username=username,
        uid=uid,
        groups=_texts(user.get("groups", []), "status.user.groups"),
        extra=tuple(sorted((key, _texts(values, "a value of status.user.extra")) for key, values in extra.items())),
    )


def _mapping(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidIdentityReviewError(f"{what} is no object")
    return cast("dict[str, object]", value)


def _texts(value: object, what: str) -> tuple[str, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    texts = tuple(item for item in items if isinstance(item, str))
    if len(texts) != len(items):
        raise InvalidIdentityReviewError(f"{what} is no list of texts")
    return texts
