/* Whether bytes are an ONNX `ModelProto` that is complete in itself: FORMAT.md, "Chunks".

   Protobuf's wire format is walked beside a list of the fields that matter: messages, packed numbers, and what may
   not be there. The rest has to be well-formed, no more. A field that occurs twice is judged by each occurrence, but
   for `data_location`, of which the last one counts, as it does for every parser.

   Source: https://protobuf.dev/programming-guides/encoding/; onnx.proto of ONNX 1.23. */

#include "press_parts.h"

enum { DEEPEST = 100 }; /* messages inside messages: the bound of protobuf's own parsers */

enum { VARINT, FIXED_64, DELIMITED, GROUP, END_OF_GROUP, FIXED_32 }; /* wire types */

/* What a length-delimited field holds: bytes, packed numbers, or a message with rules of its own. */
enum {
    BYTES,
    FORBIDDEN,
    TEXT, /* must be UTF-8 */
    PACKED,
    PACKED_32,
    PACKED_64,
    LEAF, /* a message of which only the form matters */
    METADATA,
    MODEL,
    GRAPH,
    NODE,
    ATTRIBUTE,
    TENSOR,
    SPARSE_TENSOR,
    TYPE,
    TYPE_TENSOR,
    TYPE_MAP,
    TYPE_OF,
    SHAPE,
    DEVICES,
    SHARDING,
    DEVICE_GROUP,
    SHARDED_AXIS,
    VALUE,
    ANNOTATION,
    TRAINING,
    FUNCTION
};

typedef struct {
    uint8_t message, field, holds;
} rule;

static const rule rules[] = {
    {METADATA, 1, TEXT},
    {METADATA, 2, TEXT},
    {MODEL, 7, GRAPH},
    {MODEL, 8, LEAF}, /* opset_import */
    {MODEL, 14, METADATA},
    {MODEL, 20, TRAINING},
    {MODEL, 25, FUNCTION},
    {MODEL, 26, LEAF}, /* configuration */
    {GRAPH, 1, NODE},
    {GRAPH, 5, FORBIDDEN}, /* initializer */
    {GRAPH, 11, VALUE},    /* input */
    {GRAPH, 12, VALUE},    /* output */
    {GRAPH, 13, VALUE},
    {GRAPH, 14, ANNOTATION},
    {GRAPH, 15, FORBIDDEN}, /* sparse_initializer */
    {GRAPH, 16, LEAF},      /* metadata_props */
    {NODE, 5, ATTRIBUTE},
    {NODE, 9, LEAF},
    {NODE, 10, DEVICES},
    {ATTRIBUTE, 5, TENSOR},
    {ATTRIBUTE, 6, GRAPH},
    {ATTRIBUTE, 7, PACKED_32},
    {ATTRIBUTE, 8, PACKED},
    {ATTRIBUTE, 10, TENSOR},
    {ATTRIBUTE, 11, GRAPH},
    {ATTRIBUTE, 14, TYPE},
    {ATTRIBUTE, 15, TYPE},
    {ATTRIBUTE, 22, SPARSE_TENSOR},
    {ATTRIBUTE, 23, SPARSE_TENSOR},
    {TENSOR, 1, PACKED},
    {TENSOR, 3, LEAF}, /* segment */
    {TENSOR, 4, PACKED_32},
    {TENSOR, 5, PACKED},
    {TENSOR, 7, PACKED},
    {TENSOR, 10, PACKED_64},
    {TENSOR, 11, PACKED},
    {TENSOR, 13, FORBIDDEN}, /* external_data */
    {TENSOR, 16, LEAF},
    {SPARSE_TENSOR, 1, TENSOR},
    {SPARSE_TENSOR, 2, TENSOR},
    {SPARSE_TENSOR, 3, PACKED},
    {TYPE, 1, TYPE_TENSOR},
    {TYPE, 4, TYPE_OF}, /* sequence */
    {TYPE, 5, TYPE_MAP},
    {TYPE, 7, LEAF},        /* opaque */
    {TYPE, 8, TYPE_TENSOR}, /* sparse */
    {TYPE, 9, TYPE_OF},     /* optional */
    {TYPE_TENSOR, 2, SHAPE},
    {TYPE_MAP, 2, TYPE},
    {TYPE_OF, 1, TYPE},
    {SHAPE, 1, LEAF},
    {DEVICES, 2, SHARDING},
    {SHARDING, 2, PACKED},
    {SHARDING, 3, DEVICE_GROUP},
    {SHARDING, 4, SHARDED_AXIS},
    {DEVICE_GROUP, 2, PACKED},
    {SHARDED_AXIS, 2, LEAF},
    {VALUE, 2, TYPE},
    {VALUE, 4, LEAF},
    {ANNOTATION, 2, LEAF},
    {TRAINING, 1, GRAPH},
    {TRAINING, 2, GRAPH},
    {TRAINING, 3, LEAF},
    {TRAINING, 4, LEAF},
    {FUNCTION, 7, NODE},
    {FUNCTION, 9, LEAF},
    {FUNCTION, 11, ATTRIBUTE},
    {FUNCTION, 12, VALUE},
    {FUNCTION, 14, LEAF},
};

enum { DATA_LOCATION = 14, EXTERNAL = 1 };

/* A message, or a group of unknown fields, that is being read. */
typedef struct {
    size_t end;
    uint32_t group; /* number of the field that opened it; 0 for a message */
    uint8_t message;
    uint8_t is_external; /* of a tensor */
} level;

typedef struct {
    const uint8_t *bytes;
    size_t at;
    level levels[DEEPEST + 1];
    unsigned depth;
} walker;

static unsigned what_holds(unsigned message, uint32_t field)
{
    unsigned k;

    for (k = 0; k < sizeof rules / sizeof *rules; k++) {
        if (rules[k].message == message && rules[k].field == field) {
            return rules[k].holds;
        }
    }
    return BYTES;
}

static int take_varint(walker *self, size_t end, unsigned longest, uint64_t *value)
{
    unsigned k;

    *value = 0;
    for (k = 0; k < longest && self->at < end; k++) {
        uint8_t byte = self->bytes[self->at++];

        *value |= (uint64_t)(byte & 127) << (7 * k);
        if (byte < 128) {
            return k < 9 || byte < 2;
        }
    }
    return 0;
}

static int skip(walker *self, size_t end, uint64_t n)
{
    if (n > end - self->at) {
        return 0;
    }
    self->at += (size_t)n;
    return 1;
}

static int open_level(walker *self, unsigned message, uint32_t group, size_t end)
{
    level *inner;

    if (self->depth == DEEPEST) {
        return 0;
    }
    inner = &self->levels[++self->depth];
    inner->end = end;
    inner->group = group;
    inner->message = (uint8_t)message;
    inner->is_external = 0;
    return 1;
}

static int take_packed(walker *self, unsigned kind, size_t end)
{
    uint64_t value;

    if (kind != PACKED) {
        size_t n = end - self->at;
        return n % (kind == PACKED_32 ? 4 : 8) == 0 && skip(self, end, n);
    }
    while (self->at < end) {
        if (!take_varint(self, end, 10, &value)) {
            return 0;
        }
    }
    return 1;
}

static int take_delimited(walker *self, const level *now, uint32_t field)
{
    unsigned holds = now->group ? BYTES : what_holds(now->message, field);
    uint64_t n;
    size_t end;

    if (!take_varint(self, now->end, 5, &n) || n > INT32_MAX || n > now->end - self->at) {
        return 0;
    }
    end = self->at + (size_t)n;

    if (holds >= LEAF) {
        return open_level(self, holds, 0, end);
    }
    if (holds >= PACKED) {
        return take_packed(self, holds, end);
    }
    if (holds == FORBIDDEN || (holds == TEXT && !press_is_text(self->bytes + self->at, (size_t)n, 0))) {
        return 0;
    }
    return skip(self, end, n);
}

static int take_field(walker *self)
{
    level *now = &self->levels[self->depth];
    uint64_t tag, value;
    uint32_t field;

    if (!take_varint(self, now->end, 5, &tag) || tag > UINT32_MAX || tag < 8) {
        return 0;
    }
    field = (uint32_t)tag >> 3;

    switch (tag & 7) {
    case VARINT:
        if (!take_varint(self, now->end, 10, &value)) {
            return 0;
        }
        /* other values than these are none of the enumeration: a parser leaves them aside */
        if (now->message == TENSOR && !now->group && field == DATA_LOCATION && (uint32_t)value <= EXTERNAL) {
            now->is_external = (uint8_t)value;
        }
        return 1;
    case FIXED_64:
        return skip(self, now->end, 8);
    case DELIMITED:
        return take_delimited(self, now, field);
    case GROUP:
        return open_level(self, now->message, field, now->end);
    case END_OF_GROUP:
        if (field != now->group) {
            return 0;
        }
        self->depth--;
        return 1;
    case FIXED_32:
        return skip(self, now->end, 4);
    default:
        return 0;
    }
}

press_status press_check_graph(const uint8_t *bytes, size_t n_bytes)
{
    walker self;

    self.bytes = bytes;
    self.at = 0;
    self.depth = 0;
    memset(&self.levels[0], 0, sizeof self.levels[0]);
    self.levels[0].message = MODEL;
    self.levels[0].end = n_bytes;

    for (;;) {
        const level *now = &self.levels[self.depth];

        if (self.at < now->end) {
            if (!take_field(&self)) {
                return PRESS_BAD_GRAPH;
            }
            continue;
        }
        /* a group must be closed before the message around it ends */
        if (now->group || now->is_external) {
            return PRESS_BAD_GRAPH;
        }
        if (self.depth == 0) {
            return PRESS_OK;
        }
        self.depth--;
    }
}
