"""Our messages of the Open Inference Protocol are those of the published one, field by field."""

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from schemas import inference_v2 as v2
from schemas.errors import ContractError, Reason


def shape(descriptor: Any) -> dict[str, Any]:
    """What two descriptors must agree on, by field name; map entries and nested ones go along."""
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
            bool(field.message_type) and field.message_type.GetOptions().map_entry,
        )
        for field in descriptor.fields
    }


def descriptors(ours: Any, theirs: Any) -> list[tuple[Any, Any]]:
    pairs = [(ours, theirs)]
    for nested in theirs.nested_types:
        pairs += descriptors(ours.nested_types_by_name[nested.name], nested)
    return pairs


@pytest.mark.parametrize("method", v2.METHODS, ids=lambda method: method.name)
def test_every_field_is_that_of_the_published_protocol(method: v2.Method) -> None:
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    theirs = service.methods_by_name[method.name]
    assert theirs.containing_service.full_name == v2.SERVICE
    for made, published in (
        (method.request, theirs.input_type),
        (method.response, theirs.output_type),
    ):
        for one, other in descriptors(made().DESCRIPTOR, published):
            assert one.full_name == other.full_name
            assert shape(one) == shape(other)


@pytest.mark.parametrize(
    "name", ["InferParameter", "InferTensorContents", "ModelRepositoryParameter"]
)
def test_the_shared_messages_are_too(name: str) -> None:
    theirs = service_pb2.DESCRIPTOR.message_types_by_name[name]
    assert shape(v2.message_class(name)().DESCRIPTOR) == shape(theirs)


@given(
    st.text(max_size=20),
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(), st.floats()),
        max_size=3,
    ),
    st.lists(st.floats(width=32), max_size=20),
)
def test_the_published_client_reads_what_we_write_and_the_other_way_round(
    name: str, parameters: dict[str, Any], values: list[float]
) -> None:
    ours = v2.MODEL_INFER.request(
        model_name=name,
        parameters={key: v2.parameter(value) for key, value in parameters.items()},
        inputs=[
            v2.InferInputTensor(
                name="features",
                shape=[1, len(values)],
                contents=v2.InferTensorContents(fp32_contents=values),
            )
        ],
    )
    theirs = service_pb2.ModelInferRequest.FromString(v2.encode(ours))
    back = v2.decode(v2.MODEL_INFER.request, theirs.SerializeToString())
    assert back.model_name == name
    assert all(same(v2.parameters_of(back)[key], value) for key, value in parameters.items())
    assert all(map(same, back.inputs[0].contents.fp32_contents, values))


def same(one: Any, other: Any) -> bool:
    both_nan = isinstance(one, float) and math.isnan(one) and math.isnan(other)
    return both_nan or (type(one) is type(other) and one == other)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(ContractError) as caught:
        v2.decode(v2.MODEL_INFER.request, b"\xff\xff\xff")
    assert caught.value.reason is Reason.MALFORMED


def test_what_runs_in_a_car_never_imports_it() -> None:
    """A bare edge or simulator has no protobuf."""
    program = (
        "import sys, importlib, pkgutil, schemas, scoring, edge, simulator\n"
        "for room in (schemas, scoring, edge, simulator):\n"
        "    for module in pkgutil.iter_modules(room.__path__, room.__name__ + '.'):\n"
        "        if module.name != 'schemas.inference_v2':\n"
        "            importlib.import_module(module.name)\n"
        "print([name for name in sys.modules if name.startswith(('google.protobuf', 'grpc'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
