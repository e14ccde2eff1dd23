"""Which operators of a model the TFLite runtime on this machine lacks.

The runtime itself is asked, by a model of no operation that names the one in question: its own
table is the only one that is true for it. The model that is judged is not loaded for that.
"""

import struct
from functools import cache

from scoring.flatbuffer import CUSTOM_CODE, IDENTIFIER, Operator, model_operators
from scoring.interpreter import runtime_loads

# In the order of their numbers, as in version 3 of TFLite's schema.
_NAMES_TEXT = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D
LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1
RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM
CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM
CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT
SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT
SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND
LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL
REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE
MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5
SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM
CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND
HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE
ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL
GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX
UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT
STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM
STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM
STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS
STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER
STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER
STABLEHLO_COMPARE STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE
STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT
STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR
REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
"""
_NAMES = _NAMES_TEXT.split()

_BYTE_MAX = 127


def lacking_operators(model: bytes) -> list[str]:
    """Operators that a model needs and the runtime lacks, in words; empty if all are there.

    An operator that is not builtin is lacking whatever it is: none is taken.

    Args:
        model: TFLite bytes that `scoring.flatbuffer.check_tflite` has passed.

    Raises:
        SettingsError: No TFLite runtime is installed.
    """
    return [in_words(each) for each in model_operators(model) if not _is_there(each)]


def in_words(operator: Operator) -> str:
    """How an operator is called.

    Example:
        >>> in_words(Operator(9, 12)), in_words(Operator(32, 1, "FlexErf"))
        ('FULLY_CONNECTED version 12', "custom operator 'FlexErf'")
    """
    if operator.code == CUSTOM_CODE:
        return f"custom operator {operator.custom!r}"
    known = 0 <= operator.code < len(_NAMES)
    name = _NAMES[operator.code] if known else f"operator number {operator.code}"
    return f"{name} version {operator.version}"


@cache
def _is_there(operator: Operator) -> bool:
    if operator.code == CUSTOM_CODE:
        return False
    return runtime_loads(_probe(operator.code, operator.version))


def _probe(code: int, version: int) -> bytes:
    """A model that names an operator and has no use for it: one tensor, in and out.

    Laid out by hand; each table stands behind its directory, offsets are those of the bytes.
    """
    parts = (
        struct.pack("<I4s", 24, IDENTIFIER),
        struct.pack("<8H", 14, 20, 4, 8, 12, 0, 16, 0),  # 8: directory of the model
        struct.pack("<i4I", 16, 3, 44 - 32, 52 - 36, 60 - 40),  # 24: the model
        struct.pack("<2I", 1, 80 - 48),  # 44: operator codes
        struct.pack("<2I", 1, 108 - 56),  # 52: graphs
        struct.pack("<2I", 1, 176 - 64),  # 60: buffers
        struct.pack("<6H", 12, 16, 4, 0, 8, 12),  # 68: directory of the operator code
        struct.pack("<ib3xii", 12, min(code, _BYTE_MAX), version, code),  # 80: the code
        struct.pack("<6H", 12, 20, 4, 8, 12, 16),  # 96: directory of the graph
        struct.pack("<i4I", 12, 128 - 112, 136 - 116, 136 - 120, 144 - 124),  # 108: the graph
        struct.pack("<2I", 1, 156 - 132),  # 128: tensors
        struct.pack("<Ii", 1, 0),  # 136: its inputs, and its outputs
        struct.pack("<I", 0),  # 144: operators
        struct.pack("<4H", 6, 8, 4, 0),  # 148: directory of the tensor
        struct.pack("<iI", 8, 164 - 160),  # 156: the tensor
        struct.pack("<Ii", 1, 1),  # 164: its shape
        struct.pack("<2H", 4, 4),  # 172: directory of the buffer
        struct.pack("<i", 4),  # 176: the buffer
    )
    return b"".join(parts)
