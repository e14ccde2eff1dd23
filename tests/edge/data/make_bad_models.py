"""Makes `endless.tflite` and `greedy.tflite`: run from the root; needs the extra 'cloud'.

endless: a loop that never ends, whatever comes in. greedy: wants 16 MB for each row of a batch.
"""

from pathlib import Path

import tensorflow as tf

HERE = Path(__file__).parent
WIDE = 2_000_000


def endless(rows: tf.Tensor) -> tf.Tensor:
    begin = tf.reduce_sum(rows) * 0.0
    (end,) = tf.while_loop(lambda i: i < 1.0, lambda i: (i * 0.5,), (begin,))
    return rows + end


def greedy(rows: tf.Tensor) -> tf.Tensor:
    wide = tf.tile(rows, [1, WIDE])
    return tf.square(wide)[:, :2]


for make in (endless, greedy):
    function = tf.function(make, input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], function
    )
    (HERE / f"{make.__name__}.tflite").write_bytes(converter.convert())
