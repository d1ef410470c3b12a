/* The table of paths. */
#include "server/handlers.h"

const route routes[] = {
    {"GET", "/", handle_page, DIALECT_OPENAI, true},
    {"GET", "/health", handle_health, DIALECT_OPENAI, true},
    {"GET", "/version", handle_version, DIALECT_OPENAI, true},
    {"GET", "/status", handle_status, DIALECT_OPENAI, false},
    {"GET", "/metrics", handle_metrics, DIALECT_OPENAI, false},
    {"GET", "/models", handle_models, DIALECT_OPENAI, false},
    {"GET", "/models/", handle_model, DIALECT_OPENAI, false},
    {"POST", "/chat/completions", handle_chat_completions, DIALECT_OPENAI, false},
    {"POST", "/completions", handle_completions, DIALECT_OPENAI, false},
    {"POST", "/responses", handle_responses, DIALECT_OPENAI, false},
    {"POST", "/responses/input_tokens", handle_response_tokens, DIALECT_OPENAI, false},
    {"GET", "/responses/", handle_response, DIALECT_OPENAI, false},
    {"DELETE", "/responses/", handle_response_forget, DIALECT_OPENAI, false},
    {"POST", "/messages", handle_messages, DIALECT_ANTHROPIC, false},
    {"POST", "/messages/count_tokens", handle_count_tokens, DIALECT_ANTHROPIC, false},
    {"POST", "/embeddings", handle_embeddings, DIALECT_OPENAI, false},
    {"POST", "/tokenize", handle_tokenize, DIALECT_OPENAI, false},
    {"POST", "/detokenize", handle_detokenize, DIALECT_OPENAI, false},
    {"GET", "/tokenizer_info", handle_tokenizer_info, DIALECT_OPENAI, false},
    {0},
};
