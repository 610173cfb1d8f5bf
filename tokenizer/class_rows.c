/* Rows by what the constructors in transformers' models/ NAME /tokenization_NAME.py do (version 4: tokenization_NAME_fast.py). */
#include "tokenizer/class_rows.h"
#include "tokenizer/frame.h"
#include "tokenizer/settings.h"
#include <string.h>

#define END_OF_TEXT "<|endoftext|>"

/* ---- version 5's frames: all of a tokenizer.json but vocabulary, merges, added tokens and post-processor ---- */

static json_t *unk_name(const struct settings *s)
{
    const struct token_spec *unk = &s->roles[ROLE_UNK];
    return unk->content ? json_stringn(unk->content, unk->len) : json_string("None");
}

static bool prefix_unless_no(const struct settings *s)
{
    return s->add_prefix_space == KNOB_NULL || knob_is_true(s->add_prefix_space, true);
}

static json_t *frame_llama(const struct settings *s)
{
    bool prefix = prefix_unless_no(s);
    const char *scheme = !prefix ? "never" : knob_is_true(s->legacy, false) ? "always" : "first";
    return json_pack("{s:{s:b, s:b}, s:o, s:o}", "model", "fuse_unk", 1, "byte_fallback", 1, "pre_tokenizer", frame_metaspace(scheme),
                     "decoder", frame_mark_decoder(true, true, prefix));
}

static json_t *frame_code_llama(const struct settings *s)
{
    return json_pack("{s:{s:b, s:b, s:o}, s:o, s:o}", "model", "fuse_unk", 1, "byte_fallback", 1, "unk_token", unk_name(s), "pre_tokenizer",
                     frame_metaspace(prefix_unless_no(s) ? "first" : "never"), "decoder", frame_mark_decoder(true, true, true));
}

static json_t *frame_gemma(const struct settings *s)
{
    return json_pack("{s:{s:b, s:b, s:o}, s:o, s:o, s:o}", "model", "fuse_unk", 1, "byte_fallback", 1, "unk_token", unk_name(s),
                     "normalizer", frame_replace("String", " ", FRAME_SPACE), "pre_tokenizer",
                     frame_split("String", " ", "MergedWithPrevious"), "decoder", frame_mark_decoder(true, true, false));
}

/* What the byte-level classes share. */
static json_t *byte_level_frame(json_t *normalizer, json_t *pre_tokenizer)
{
    return json_pack("{s:{}, s:o, s:o, s:o}", "model", "normalizer", normalizer, "pre_tokenizer", pre_tokenizer, "decoder",
                     frame_byte_level(true, true));
}

static json_t *own_byte_level(const struct settings *s, bool use_regex)
{
    return frame_byte_level(knob_is_true(s->add_prefix_space, false), use_regex);
}

static json_t *frame_gpt2(const struct settings *s)
{
    return byte_level_frame(json_null(), own_byte_level(s, true));
}

static json_t *frame_gpt_neox(const struct settings *s)
{
    return byte_level_frame(json_pack("{s:s}", "type", "NFC"), own_byte_level(s, true));
}

static json_t *frame_cohere(const struct settings *s)
{
    json_t *steps[] = {json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1), own_byte_level(s, true)};
    return byte_level_frame(json_pack("{s:s}", "type", "NFC"), frame_sequence("pretokenizers", steps, 2));
}

static json_t *frame_qwen2(const struct settings *s)
{
    static const char split[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                                "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    json_t *steps[] = {frame_split("Regex", split, "Isolated"), own_byte_level(s, false)};
    return byte_level_frame(json_pack("{s:s}", "type", "NFC"), frame_sequence("pretokenizers", steps, 2));
}

/* ---- rows ---- */

#define ROLES(bos, eos, unk, pad) {[ROLE_BOS] = bos, [ROLE_EOS] = eos, [ROLE_UNK] = unk, [ROLE_PAD] = pad}

static const struct class_row rows[] = {
    {"PreTrainedTokenizer", {.known = true, .takes_spm = true}, {.known = true, .takes_spm = true}},
    {"TokenizersBackend", {.known = true, .takes_spm = true}, {.known = true, .takes_spm = true}},
    {"LlamaTokenizer",
     {.known = true,
      .roles = ROLES("<s>", "</s>", "<unk>", NULL),
      .template = TEMPLATE_OWN,
      .add_bos = true,
      .prefix_is_null = true,
      .prefix_is_slow = true,
      .takes_spm = true},
     {.known = true, .roles = ROLES("<s>", "</s>", "<unk>", NULL), .takes_spm = true, .frame = frame_llama}},
    {"CodeLlamaTokenizer",
     {.known = true,
      .roles = ROLES("<s>", "</s>", "<unk>", NULL),
      .template = TEMPLATE_OWN,
      .add_bos = true,
      .takes_spm = true,
      .infills = true},
     {.known = true,
      .roles = ROLES("<s>", "</s>", "<unk>", NULL),
      .template = TEMPLATE_OWN,
      .add_bos = true,
      .takes_spm = true,
      .infills = true,
      .frame = frame_code_llama}},
    {"GPT2Tokenizer",
     {.known = true, .slow_file = "vocab.json", .roles = ROLES(END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, NULL)},
     {.known = true, .roles = ROLES(END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, ROLE_NONE), .takes_spm = true, .frame = frame_gpt2}},
    {"CodeGenTokenizer",
     {.known = true, .slow_file = "vocab.json", .roles = ROLES(END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, NULL), .template = TEMPLATE_NO_BOS},
     {.known = true, .roles = ROLES(END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, ROLE_NONE), .takes_spm = true, .frame = frame_gpt2}},
    {"GPTNeoXTokenizer",
     {.known = true, .roles = ROLES(END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, ROLE_NONE), .template = TEMPLATE_OWN},
     {.known = true,
      .roles = ROLES(END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, "<|padding|>"),
      .template = TEMPLATE_OWN,
      .takes_spm = true,
      .frame = frame_gpt_neox}},
    {"Qwen2Tokenizer",
     {.known = true,
      .slow_file = "vocab.json",
      .roles = ROLES(ROLE_NONE, END_OF_TEXT, END_OF_TEXT, END_OF_TEXT),
      .roles_are_objects = true},
     {.known = true,
      .roles = ROLES(ROLE_NONE, END_OF_TEXT, END_OF_TEXT, END_OF_TEXT),
      .takes_spm = true,
      .frame = frame_qwen2,
      .flags_named = true}},
    {"CohereTokenizer",
     {.known = true,
      .roles = ROLES("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<UNK>", NULL),
      .template = TEMPLATE_OWN,
      .add_bos = true,
      .prefix_for_all = true},
     {.known = true,
      .roles = {[ROLE_BOS] = "<BOS_TOKEN>",
                [ROLE_EOS] = "<|END_OF_TURN_TOKEN|>",
                [ROLE_UNK] = "<UNK>",
                [ROLE_PAD] = "<PAD>",
                [ROLE_CLS] = "<CLS>",
                [ROLE_SEP] = "<SEP>",
                [ROLE_MASK] = "<MASK_TOKEN>"},
      .takes_spm = true,
      .frame = frame_cohere,
      .flags_own = true}},
    {"GemmaTokenizer",
     {.known = true,
      .slow_file = "tokenizer.model",
      .roles = ROLES("<bos>", "<eos>", "<unk>", "<pad>"),
      .template = TEMPLATE_OWN,
      .add_bos = true},
     {.known = true,
      .roles = {[ROLE_BOS] = "<bos>", [ROLE_EOS] = "<eos>", [ROLE_UNK] = "<unk>", [ROLE_PAD] = "<pad>", [ROLE_MASK] = "<mask>"},
      .takes_spm = true,
      .frame = frame_gemma}},
    {"BloomTokenizer",
     {.known = true, .roles = ROLES("<s>", "</s>", "<unk>", "<pad>"), .prefix_for_all = true},
     {.known = true, .takes_spm = true}},
};

/* Classes of transformers 4.57 or 5.24 with rules of their own that are not carried out; each ends in "Tokenizer". */
static const char *const others[] = {
    "Albert",
    "Bart",
    "Barthez",
    "Bartpho",
    "Basic",
    "BertGeneration",
    "BertJapanese",
    "Bert",
    "Bertweet",
    "BigBird",
    "BioGpt",
    "BlenderbotSmall",
    "Blenderbot",
    "ByT5",
    "CLIP",
    "CTRL",
    "Camembert",
    "Canine",
    "Character",
    "Clvp",
    "ConvBert",
    "CpmAnt",
    "Cpm",
    "DPRContextEncoder",
    "DPRQuestionEncoder",
    "DPRReader",
    "Deberta",
    "DebertaV2",
    "Dia",
    "DistilBert",
    "Electra",
    "ErnieM",
    "Esm",
    "Esmc",
    "FNet",
    "FSMT",
    "FastSpeech2Conformer",
    "Flaubert",
    "Funnel",
    "GPTNeoXJapanese",
    "GPTSanJapanese",
    "GPTSw3",
    "Herbert",
    "Jukebox",
    "LED",
    "Lasr",
    "LayoutLM",
    "LayoutLMv2",
    "LayoutLMv3",
    "LayoutXLM",
    "Longformer",
    "Luke",
    "Lxmert",
    "M2M100",
    "MBart50",
    "MBart",
    "MLuke",
    "MPNet",
    "MT5",
    "Marian",
    "MarkupLM",
    "Mecab",
    "Mgpstr",
    "MobileBert",
    "Mvp",
    "MyT5",
    "Nllb",
    "Nougat",
    "OpenAIGPT",
    "PLBart",
    "ParakeetCTC",
    "Parakeet",
    "Pegasus",
    "Perceiver",
    "Phobert",
    "Pop2Piano",
    "ProphetNet",
    "Qwen3_5",
    "Rag",
    "Realm",
    "Reformer",
    "RemBert",
    "RetriBert",
    "RoCBert",
    "RoFormer",
    "Roberta",
    "SeamlessM4T",
    "Siglip2",
    "Siglip",
    "Speech2Text2",
    "Speech2Text",
    "SpeechT5",
    "Splinter",
    "SqueezeBert",
    "T5",
    "Tapas",
    "Tapex",
    "Tipsv2",
    "TransfoXL",
    "Udop",
    "VideoPrism",
    "Vits",
    "Wav2Vec2CTC",
    "Wav2Vec2PhonemeCTC",
    "Whisper",
    "Wordpiece",
    "XGLM",
    "XLMProphetNet",
    "XLMRoberta",
    "XLM",
    "XLNet",
};

/* Compares without "Fast" at the end. */
static bool is_class(const char *name, const char *stem, const char *ending)
{
    size_t n = strlen(name), stem_len = strlen(stem), ending_len = strlen(ending);
    if (n > 4 && strcmp(name + n - 4, "Fast") == 0)
        n -= 4;
    return n == stem_len + ending_len && memcmp(name, stem, stem_len) == 0 && memcmp(name + stem_len, ending, ending_len) == 0;
}

const struct class_row *class_row_find(const char *name, bool *ret_known)
{
    *ret_known = true;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (is_class(name, rows[i].name, ""))
            return &rows[i];
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (is_class(name, others[i], "Tokenizer"))
            return NULL;
    *ret_known = false;
    return NULL;
}

const struct class_row *class_row_plain(void)
{
    return &rows[0];
}

/* ---- model types ---- */

/* Language models of transformers that have one of the classes above. */
static const struct model_type_row types[] = {
    {"arcee", "LlamaTokenizer", NULL, false},
    {"bitnet", NULL, NULL, false},
    {"bloom", "BloomTokenizer", NULL, false},
    {"code_llama", "CodeLlamaTokenizer", "CodeLlamaTokenizer", false},
    {"codegen", "CodeGenTokenizer", "GPT2Tokenizer", false},
    {"cohere", "CohereTokenizer", "CohereTokenizer", false},
    {"cohere2", "CohereTokenizer", "CohereTokenizer", false},
    {"dbrx", "GPT2Tokenizer", "GPT2Tokenizer", false},
    {"deepseek_v2", "LlamaTokenizer", NULL, false},
    {"deepseek_v3", "LlamaTokenizer", NULL, false},
    {"diffllama", "LlamaTokenizer", NULL, false},
    {"ernie4_5", "LlamaTokenizer", "TokenizersBackend", true},
    {"exaone4", "GPT2Tokenizer", NULL, false},
    {"falcon", NULL, NULL, false},
    {"falcon_mamba", "GPTNeoXTokenizer", "GPTNeoXTokenizer", false},
    {"flex_olmo", "GPT2Tokenizer", "TokenizersBackend", false},
    {"gemma", "GemmaTokenizer", "GemmaTokenizer", false},
    {"gemma2", "GemmaTokenizer", "GemmaTokenizer", false},
    {"gemma3_text", "GemmaTokenizer", "GemmaTokenizer", false},
    {"glm", NULL, "TokenizersBackend", false},
    {"glm4", NULL, "TokenizersBackend", false},
    {"gpt2", "GPT2Tokenizer", "GPT2Tokenizer", false},
    {"gpt_bigcode", "GPT2Tokenizer", "TokenizersBackend", false},
    {"gpt_neo", "GPT2Tokenizer", "GPT2Tokenizer", false},
    {"gpt_neox", "GPTNeoXTokenizer", "GPTNeoXTokenizer", false},
    {"gpt_oss", NULL, NULL, false},
    {"gptj", "GPT2Tokenizer", "GPT2Tokenizer", false},
    {"granite", "GPT2Tokenizer", "TokenizersBackend", false},
    {"granitemoe", "GPT2Tokenizer", "TokenizersBackend", false},
    {"granitemoehybrid", "GPT2Tokenizer", "TokenizersBackend", false},
    {"helium", NULL, NULL, false},
    {"jamba", "LlamaTokenizer", "TokenizersBackend", true},
    {"jetmoe", "LlamaTokenizer", NULL, false},
    {"llama", "LlamaTokenizer", NULL, false},
    {"llama4_text", "LlamaTokenizer", NULL, false},
    {"mamba", "GPTNeoXTokenizer", "GPTNeoXTokenizer", false},
    {"mamba2", "GPTNeoXTokenizer", "GPTNeoXTokenizer", false},
    {"minimax", "GPT2Tokenizer", NULL, false},
    {"ministral", "LlamaTokenizer", "TokenizersBackend", false},
    {"mistral", "LlamaTokenizer", "TokenizersBackend", false},
    {"mixtral", "LlamaTokenizer", "TokenizersBackend", false},
    {"mpt", "GPTNeoXTokenizer", "GPTNeoXTokenizer", false},
    {"nemotron", NULL, "TokenizersBackend", true},
    {"olmo", "GPTNeoXTokenizer", "GPTNeoXTokenizer", false},
    {"olmo2", "GPTNeoXTokenizer", "TokenizersBackend", false},
    {"olmo3", "GPT2Tokenizer", "TokenizersBackend", false},
    {"olmoe", "GPTNeoXTokenizer", "GPTNeoXTokenizer", false},
    {"opt", "GPT2Tokenizer", "GPT2Tokenizer", false},
    {"persimmon", "LlamaTokenizer", "TokenizersBackend", false},
    {"phi", "CodeGenTokenizer", "GPT2Tokenizer", false},
    {"phi3", "LlamaTokenizer", "TokenizersBackend", true},
    {"phimoe", "LlamaTokenizer", "TokenizersBackend", true},
    {"qwen2", "Qwen2Tokenizer", "Qwen2Tokenizer", true},
    {"qwen2_moe", "Qwen2Tokenizer", "Qwen2Tokenizer", false},
    {"qwen3", "Qwen2Tokenizer", "Qwen2Tokenizer", false},
    {"qwen3_moe", "Qwen2Tokenizer", "Qwen2Tokenizer", false},
    {"qwen3_next", "Qwen2Tokenizer", "Qwen2Tokenizer", false},
    {"recurrent_gemma", "GemmaTokenizer", "GemmaTokenizer", false},
    {"rwkv", "GPTNeoXTokenizer", "GPTNeoXTokenizer", false},
    {"smollm3", NULL, NULL, false},
    {"stablelm", "GPTNeoXTokenizer", "TokenizersBackend", false},
    {"starcoder2", "GPT2Tokenizer", "GPT2Tokenizer", false},
    {"xlstm", "GPTNeoXTokenizer", "GPTNeoXTokenizer", false},
    {"zamba", "LlamaTokenizer", NULL, false},
    {"zamba2", "LlamaTokenizer", NULL, false},
};

const struct model_type_row *model_type_find(const char *type)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(types[i].type, type) == 0)
            return &types[i];
    return NULL;
}
