/* One json_pack a component. */
#include "tokenizer/frame.h"

json_t *frame_replace(const char *kind, const char *pattern, const char *content)
{
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", kind, pattern, "content", content);
}

json_t *frame_metaspace(const char *scheme)
{
    return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", FRAME_SPACE, "prepend_scheme", scheme, "split", 0);
}

json_t *frame_split(const char *kind, const char *pattern, const char *behavior)
{
    return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", kind, pattern, "behavior", behavior, "invert", 0);
}

json_t *frame_byte_level(bool prefix, bool use_regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix, "trim_offsets", 1, "use_regex", use_regex);
}

json_t *frame_sequence(const char *key, json_t **steps, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        if (json_array_append_new(list, steps[i]) < 0) { /* also where a step is NULL */
            json_decref(list);
            list = NULL;
        }
    return json_pack("{s:s, s:o}", "type", "Sequence", key, list);
}

json_t *frame_mark_decoder(bool bytes, bool fuse, bool strip)
{
    json_t *steps[4];
    size_t n = 0;
    steps[n++] = frame_replace("String", FRAME_SPACE, " ");
    if (bytes)
        steps[n++] = json_pack("{s:s}", "type", "ByteFallback");
    if (fuse)
        steps[n++] = json_pack("{s:s}", "type", "Fuse");
    if (strip)
        steps[n++] = json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0);
    return frame_sequence("decoders", steps, n);
}
