/* GET /: the page for people. It is a file of its own, page.html, whose bytes the assembler puts into the program. */
#include "server/handlers.h"

__asm__(".pushsection .rodata\n"
        "page_begin: .incbin \"src/server/page.html\"\n"
        "page_end:\n"
        ".popsection\n");
extern const char page_begin[], page_end[];

void handle_page(server *s, exchange *x) {
    (void)s;
    exchange_text(x, 200, "text/html; charset=utf-8", page_begin, (size_t)(page_end - page_begin));
}
