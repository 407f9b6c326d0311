import pytest

from microaction.models import MANet
from microaction.models.manet.param_groups import parameter_groups

SMALL = {"width": 8, "depths": (1, 1, 1, 1), "embedding_dim": 10}


@pytest.mark.parametrize("variant", [{}, {"se": False, "embedding_dim": None}])
def test_every_parameter_is_in_one_group(variant: dict[str, object]) -> None:
    model = MANet(**{**SMALL, **variant})  # type: ignore[arg-type]
    grouped = [id(p) for group in parameter_groups(model, 1e-4) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_groups_are_the_references() -> None:
    model = MANet(**SMALL)  # type: ignore[arg-type]
    names = {id(p): name for name, p in model.named_parameters()}
    rule = {
        names[id(p)]: (group["lr_factor"], group["weight_decay"])
        for group in parameter_groups(model, 1e-4)
        for p in group["params"]
    }
    assert rule["backbone.conv1.weight"] == (1, 1e-4)
    assert rule["backbone.layer1.0.se.squeeze.weight"] == (1, 1e-4)
    assert rule["backbone.bn1.weight"] == rule["backbone.bn1.bias"] == (1, 0)
    assert rule["action.weight"] == (1, 1e-4)
    assert rule["action.bias"] == rule["embedding.hidden.bias"] == (2, 0)
    # The reference's "last layer" is the embedding branch's, not the classifier.
    assert rule["embedding.output.weight"] == (5, 1e-4)
    assert rule["embedding.output.bias"] == (10, 0)
