/* GET /: the page for people, one file made of three that the assembler puts into the program as they are. */
#include "server/handlers.h"

__asm__(".pushsection .rodata\n"
        "page_begin: .incbin \"src/server/page.html\"\n"
        ".incbin \"src/server/page_markdown.js\"\n"
        ".incbin \"src/server/page.js\"\n"
        ".ascii \"</script>\\n\"\n"
        "page_end:\n"
        ".popsection\n");
extern const char page_begin[], page_end[];

void handle_page(server *s, exchange *x) {
    (void)s;
    exchange_add_header(x, "Cache-Control", "no-cache");
    exchange_add_header(x, "Content-Security-Policy", "frame-ancestors 'none'"); /* the rest is in the page itself */
    exchange_text(x, 200, "text/html; charset=utf-8", page_begin, (size_t)(page_end - page_begin));
}
