"""tf.train.Example records without TensorFlow: described here, parsed by protobuf."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

Value = list[bytes] | list[float] | list[int]

_FIELD = descriptor_pb2.FieldDescriptorProto
_KINDS = (
    ("bytes_list", "BytesList", _FIELD.TYPE_BYTES),
    ("float_list", "FloatList", _FIELD.TYPE_FLOAT),
    ("int64_list", "Int64List", _FIELD.TYPE_INT64),
)


def parse(record: bytes) -> dict[str, Value]:
    """The features of a serialized tf.train.Example by name, each as a list.

    Raises:
      ValueError: the bytes are no such message.
    """
    try:
        example = _EXAMPLE.FromString(record)
    except message.DecodeError as error:
        raise ValueError(f"no tf.train.Example: {error}") from None
    out: dict[str, Value] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        out[name] = list(getattr(feature, kind).value) if kind else []
    return out


def serialize(features: dict[str, Value]) -> bytes:
    """The inverse of `parse`; an empty list is written as bytes."""
    example = _EXAMPLE()
    for name, values in features.items():
        first = values[0] if values else b""
        kind = {bytes: "bytes_list", float: "float_list"}.get(type(first), "int64_list")
        getattr(example.features.feature[name], kind).value.extend(values)
    return example.SerializeToString(deterministic=True)


def _described() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="example.proto", package="tensorflow", syntax="proto3"
    )
    for _, name, kind in _KINDS:
        values = file.message_type.add(name=name)
        values.field.add(name="value", number=1, label=_FIELD.LABEL_REPEATED, type=kind)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (field, name, _) in enumerate(_KINDS, start=1):
        one = feature.field.add(name=field, number=number, oneof_index=0)
        _is_message(one, name)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_FIELD.LABEL_OPTIONAL, type=_FIELD.TYPE_STRING)
    _is_message(entry.field.add(name="value", number=2), "Feature")
    by_name = features.field.add(name="feature", number=1)
    _is_message(by_name, "Features.FeatureEntry", repeated=True)
    example = file.message_type.add(name="Example")
    _is_message(example.field.add(name="features", number=1), "Features")
    # A pool of its own: TensorFlow, where something imports it, describes these messages too.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


def _is_message(
    field: descriptor_pb2.FieldDescriptorProto, name: str, repeated: bool = False
) -> None:
    field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".tensorflow.{name}"


_EXAMPLE = _described()
