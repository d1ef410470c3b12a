/* The template interpreter. The expected texts of `renders` are what jinja2 3.1.6 prints (sandboxed and immutable,
 * trim_blocks, lstrip_blocks, loop controls, Hugging Face's tojson); jinja2 refuses the templates of `refused` too, in
 * words of its own. Rendered conversations of real checkpoints are in test_chat.c. */
#include "text/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static const char variables[] =
    "{\"n\": 3, \"x\": \"hé<b>\\\"q\\\"\", \"f\": 1.5, \"l\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": [1, {\"k\": null}], "
    "\"items\": 7}, \"none\": null, \"yes\": true, \"s\": \"  pad\\n\", \"u\": [{\"name\": \"Bo\", \"age\": 3, \"t\": "
    "{\"v\": 1}}, {\"name\": \"al\", \"age\": 5, \"t\": {\"v\": 0}}, {\"name\": \"Cy\", \"t\": {\"v\": 2}}], \"now\": "
    "1764029153}";

static const struct {
    const char *source, *expected;
} renders[] = {
    {"{{ n }} {{ f }} {{ l }} {{ d }} {{ none }} {{ yes }}",
     "3 1.5 [3, 1, 2] {'b': 1, 'a': [1, {'k': None}], 'items': 7} None True"},
    {"{{ nope is defined }}{{ n is defined }}{{ nope is undefined }}", "FalseTrueTrue"},
    {"{{ d['items'] }}{{ d.a[1].k }}{{ d.get('zz') }}{{ d.get('zz', 4) }}{{ d.get('b') }}", "7NoneNone41"},
    {"{{ d.keys()|list }}{{ d.values()|list }}{{ d.items()|list }}",
     "['b', 'a', 'items'][1, [1, {'k': None}], 7][('b', 1), ('a', [1, {'k': None}]), ('items', 7)]"},
    {"{{ l[0] }}{{ l[-1] }}{{ l[7] is defined }}{{ l.0 }}{{ u[0].name }}{{ u.1.name }}", "32False3Boal"},
    {"{{ x[0] }}{{ x[1] }}{{ x[-1] }}{{ x[1:3] }}{{ x[::-1] }}{{ x[:-1] }}{{ x[::2] }}{{ x[5:1:-2] }}",
     "hé\"é<\"q\">b<éhhé<b>\"qh<>q\"b"},
    {"{{ l[1:] }}{{ l[::-1] }}{{ l[-2:] }}{{ l[:1] }}{{ l[5:] }}{{ l[::-2] }}{{ l[2:0:-1] }}{{ l[None:2] }}",
     "[1, 2][2, 1, 3][1, 2][3][][2, 3][2, 1][3, 1]"},
    {"{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** "
     "3 ** 2 }} {{ -2 ** 2 }}",
     "5.0 3 -4 1 2 1024 0.5 64 4"},
    {"{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 1e3 }} {{ 1.0 }} {{ 1e16 }} {{ 123456789012345.0 }} {{ "
     "1e-5 }} {{ 0.0001 }} {{ 0.1 + 0.2 }} {{ 1e100 }} {{ 1.5e300 * 1e10 }} {{ 100.0 }} {{ 12.25 }} {{ 5e-324 }}",
     "3.0 0.5 3.5 3.0 1000.0 1.0 1e+16 123456789012345.0 1e-05 0.0001 0.30000000000000004 1e+100 inf 100.0 12.25 "
     "5e-324"},
    {"{{ 9223372036854775807 + 0 }}", "9223372036854775807"},
    {"{{ \"a\" + \"b\" ~ 1 ~ none ~ 2.0 ~ yes }}", "ab1None2.0True"},
    {"{{ \"a\" ~ nope }}", "a"},
    {"{{ \"ab\" * 3 }}{{ [1] * 2 }}{{ 2 * \"x\" }}{{ [1] + [2] }}{{ (1,) + (2, 3) }}{{ \"x\" * -1 }}",
     "ababab[1, 1]xx[1, 2](1, 2, 3)"},
    {"{{ 1 < 2 }}{{ 1 < 2 < 3 }}{{ 3 > 2 > 2 }}{{ 1 == 1.0 }}{{ true == 1 }}{{ \"a\" < \"b\" }}{{ [1, 2] < [1, 3] }}{{ "
     "\"a\" == 1 }}{{ none == none }}{{ [1] == [1.0] }}{{ {\"a\": 1} == {\"a\": 1} }}{{ (1,) == [1] }}",
     "TrueTrueFalseTrueTrueTrueTrueFalseTrueTrueTrueFalse"},
    {"{{ nope == nope2 }}{{ nope != 1 }}", "TrueTrue"},
    {"{{ 1 in [1, 2] }}{{ 3 not in l }}{{ \"a\" in \"cat\" }}{{ \"b\" in d }}{{ \"zz\" in d }}{{ \"x\" in nope }}{{ "
     "none in [none] }}",
     "TrueFalseTrueTrueFalseFalseTrue"},
    {"{{ not yes }}{{ not not yes }}{{ yes and n }}{{ 0 or \"z\" }}{{ \"\" or none }}{{ none and 1 }}{{ 0 and nope.x "
     "}}",
     "FalseTrue3zNoneNone0"},
    {"{{ \"a\" if yes else \"b\" }}{{ \"a\" if not yes else \"b\" }}{{ \"a\" if false }}{{ (\"a\" if false) is defined "
     "}}{{ 1 if 0 else 2 if 0 else 3 }}",
     "abFalse3"},
    {"{{ 'it\\'s' }}{{ \"tab\\tq\\\"\\\\ \\x41 \\u4f60 \\U0001F600 \\101 \\q\" }}", "it'stab\tq\"\\ A 你 😀 A \\q"},
    {"{{ 'a' 'b' \"c\" }}", "abc"},
    {"{{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_000 }} {{ 1_0.5 }}", "31 5 15 1000 10.5"},
    {"{{ [] }}{{ {} }}{{ () }}{{ (1,) }}{{ (1, 2) }}{{ 1, 2 }}{{ [1, \"a\", 'it\\'s', \"q\\\"\", \"b\\n\", none, true, "
     "1.0, [2], {\"k\": \"v\"}] }}",
     "[]{}()(1,)(1, 2)(1, 2)[1, 'a', \"it's\", 'q\"', 'b\\n', None, True, 1.0, [2], {'k': 'v'}]"},
    {"{{ [x, nope] }}", "['hé<b>\"q\"', Undefined]"},
    {"{{ {\"a\": 1, 2: \"b\", none: 3, true: 4}}}", "{'a': 1, 2: 'b', None: 3, True: 4}"},
    {"{{ \"abc\"|upper }}{{ \"ABC\"|lower }}{{ \"aBC d\"|capitalize }}{{ \"hello big-WORLD (x)\"|title }}{{ \"hello "
     "big-WORLD x1y\".title() }}",
     "ABCabcAbc dHello Big-World (X)Hello Big-World X1Y"},
    {"{{ \" a b \"|trim }}|{{ \"xxaxx\"|trim(\"x\") }}|{{ \" a \".strip() }}|{{ \"xyaxy\".strip(\"yx\") }}|{{ \" a "
     "\".lstrip() }}|{{ \" a \".rstrip() }}|{{ \"aab\".lstrip(\"a\") }}",
     "a b|a|a|a|a | a|b"},
    {"{{ \"　全角　\".strip() }}|{{ \"a b\".split() }}", "全角|['a', 'b']"},
    {"{{ \" a  b  c  \".split(None, 1) }}{{ \"a\".split(\",\", 0) }}{{ \"x</think>y</think>z\".split(\"</think>\")[-1] "
     "}}{{ \"a,b\".split(\",\", maxsplit=1) }}{{ \"a,b,c,d\".rsplit(\",\", 2) }}{{ \"a,b\".rsplit(\",\") }}{{ \" a "
     "\".split(None, 0) }}",
     "['a', 'b  c  ']['a']z['a', 'b']['a,b', 'c', 'd']['a', 'b']['a ']"},
    {"{{ \"a\\nb\\r\\nc\\n\".splitlines() }}{{ \"\".splitlines() }}{{ \"a\\n\\nb\".splitlines() }}",
     "['a', 'b', 'c'][]['a', '', 'b']"},
    {"{{ \"abc\".startswith(\"ab\") }}{{ \"abc\".endswith(\"bc\") }}{{ \"abc\".startswith((\"x\", \"a\")) }}{{ "
     "\"abc\".endswith(\"\") }}",
     "TrueTrueTrueTrue"},
    {"{{ \"aXbX\".replace(\"X\", \"--\") }}{{ \"aXbX\".replace(\"X\", \"-\", 1) }}{{ \"ab\".replace(\"\", \".\") }}{{ "
     "\"aXbX\"|replace(\"X\", \"y\") }}{{ 121|replace(1, 3) }}{{ \"aaa\"|replace(\"a\", \"b\", 2) }}{{ "
     "\"\".replace(\"\", \"x\") }}",
     "a--b--a-bX.a.b.ayby323bbax"},
    {"{{ \"héllo\".find(\"l\") }}{{ \"hello\".rfind(\"l\") }}{{ \"a\".find(\"z\") }}{{ \"banana\".count(\"an\") }}{{ "
     "\"aaa\".count(\"\") }}{{ \"-\".join([\"a\", \"b\"]) }}{{ \",\".join(\"abc\") }}",
     "23-124a-ba,b,c"},
    {"{{ \"  \".isspace() }}{{ \"12\".isdigit() }}{{ \"\".isdigit() }}{{ \"Éa\".lower() }}{{ \"éß\"[0].upper() }}",
     "TrueTrueFalseéaÉ"},
    {"{{ \"abc\"|length }}{{ l|length }}{{ d|length }}{{ x|length }}{{ nope|length }}{{ ()|count }}", "333800"},
    {"{{ nope|default(\"q\") }}{{ none|default(\"q\") }}{{ \"\"|default(\"q\", true) }}{{ \"\"|default(\"q\") }}{{ "
     "nope|d }}{{ none|default(\"z\", boolean=true) }}",
     "qNoneqz"},
    {"{{ l|first }}{{ l|last }}{{ \"abc\"|first }}{{ \"abc\"|last }}{{ []|first is defined }}{{ d|first }}",
     "32acFalseb"},
    {"{{ l|join }}{{ l|join(\", \") }}{{ u|join(\"+\", attribute=\"name\") }}{{ [1, none, \"a\"]|join(\"-\") }}{{ "
     "nope|join }}{{ \"abc\"|join(\"-\") }}",
     "3123, 1, 2Bo+al+Cy1-None-aa-b-c"},
    {"{{ \"abc\"|list }}{{ d|list }}{{ range(4)|list }}{{ range(1, 8, 3)|list }}{{ range(5, 0, -2)|list }}{{ "
     "range(0)|list }}{{ (1, 2)|list }}{{ nope|list }}",
     "['a', 'b', 'c']['b', 'a', 'items'][0, 1, 2, 3][1, 4, 7][5, 3, 1][][1, 2][]"},
    {"{{ 5|string + \"x\" }}{{ none|string }}{{ [1]|string }}", "5xNone[1]"},
    {"{{ \"12\"|int + 1 }} {{ \"x\"|int }} {{ \"1.9\"|int }} {{ 3.9|int }} {{ none|int }} {{ \"x\"|int(7) }} {{ \" 5 "
     "\"|int }} {{ true|int }} {{ \"-3\"|int }} {{ \"1.5\"|float }} {{ \"x\"|float }} {{ 3|float }} {{ \"1e3\"|float "
     "}}",
     "13 0 1 3 0 7 5 1 -3 1.5 0.0 3.0 1000.0"},
    {"{{ -3|abs }} {{ -2.5|abs }} {{ 2.567|round(2) }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.1|round(0, \"ceil\") }} {{ "
     "2.9|round(method=\"floor\") }} {{ 7|round }}",
     "3 2.5 2.57 2.0 4.0 3.0 2.0 7"},
    {"{{ \"a\\nb\\n\\nc\"|indent }}|{{ \"a\\nb\"|indent(2, true) }}|{{ \"a\\n\\nb\"|indent(1, blank=true) }}|{{ "
     "\"a\\nb\"|indent(\"> \", first=true) }}",
     "a\n    b\n\n    c|  a\n  b|a\n \n b|> a\n> b"},
    {"{{ l|sort }}{{ l|sort(reverse=true) }}{{ [\"b\", \"A\", \"c\"]|sort }}{{ [\"b\", "
     "\"A\"]|sort(case_sensitive=true) }}{{ u|sort(attribute=\"name\")|map(attribute=\"name\")|list }}{{ "
     "u|sort(attribute=\"t.v\", reverse=true)|map(attribute=\"t.v\")|list }}",
     "[1, 2, 3][3, 2, 1]['A', 'b', 'c']['A', 'b']['al', 'Bo', 'Cy'][2, 1, 0]"},
    {"{{ {\"b\": 1, \"A\": 3, \"c\": 2}|dictsort }}{{ {\"b\": 1, \"A\": 3}|dictsort(true) }}{{ {\"b\": 1, \"a\": "
     "3}|dictsort(by=\"value\", reverse=true) }}",
     "[('A', 3), ('b', 1), ('c', 2)][('A', 3), ('b', 1)][('a', 3), ('b', 1)]"},
    {"{{ [1, 2, 1, \"a\", \"A\"]|unique|list }}{{ l|reverse|list }}{{ \"abc\"|reverse }}{{ (1, 2)|reverse|list }}",
     "[1, 2, 'a'][2, 1, 3]cba[2, 1]"},
    {"{{ l|min }}{{ l|max }}{{ [\"b\", \"A\"]|min }}{{ []|max is defined }}{{ l|sum }}{{ u|sum(\"t.v\") }}{{ [1.5, "
     "1]|sum }}{{ []|sum(start=3) }}",
     "13AFalse632.53"},
    {"{{ [\"a\", \"b\"]|map(\"upper\")|join }}{{ l|map(\"string\")|list }}{{ u|map(attribute=\"age\", default=0)|list "
     "}}{{ u|map(attribute=\"t.v\")|list }}{{ [\"a-b\"]|map(\"replace\", \"-\", \"+\")|list }}",
     "AB['3', '1', '2'][3, 5, 0][1, 0, 2]['a+b']"},
    {"{{ l|select(\"odd\")|list }}{{ l|reject(\"odd\")|list }}{{ l|select(\"gt\", 1)|list }}{{ [0, 1, \"\", \"a\", "
     "none]|select|list }}{{ l|select(\"in\", [1, 2])|list }}",
     "[3, 1][2][3, 2][1, 'a'][1, 2]"},
    {"{{ u|selectattr(\"age\")|map(attribute=\"name\")|list }}{{ u|selectattr(\"name\", \"equalto\", "
     "\"Bo\")|list|length }}{{ u|rejectattr(\"age\", \"defined\")|map(attribute=\"name\")|list }}{{ "
     "u|selectattr(\"t.v\", \"==\", 2)|map(attribute=\"name\")|list }}{{ u|selectattr(\"age\", \"undefined\")|first }}",
     "['Bo', 'al']1['Cy']['Cy']{'name': 'Cy', 't': {'v': 2}}"},
    {"{{ d|items|list }}{{ x|safe }}{{ u[0]|attr(\"name\") is defined }}",
     "[('b', 1), ('a', [1, {'k': None}]), ('items', 7)]hé<b>\"q\"False"},
    {"{% if false %}{{ \"a\"|nofilter }}{% endif %}ok", "ok"},
    {"{{ d|tojson }}{{ x|tojson }}{{ [1, 1.0, 1e20, true, none, \"é\\n\\t\\u0001/<>&'\"]|tojson }}{{ {1: 2, none: 3, "
     "true: 1.5}|tojson }}{{ []|tojson }}{{ {}|tojson }}",
     "{\"b\": 1, \"a\": [1, {\"k\": null}], \"items\": 7}\"hé<b>\\\"q\\\"\"[1, 1.0, 1e+20, true, null, "
     "\"é\\n\\t\\u0001/<>&'\"]{\"1\": 1.5, \"null\": 3}[]{}"},
    {"{{ d|tojson(indent=2) }}{{ []|tojson(indent=2) }}{{ {\"a\": {}}|tojson(indent=4) }}",
     "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    {\n      \"k\": null\n    }\n  ],\n  \"items\": 7\n}[]{\n    \"a\": "
     "{}\n}"},
    {"{{ {\"b\": 1, \"a\": [1, 2]}|tojson(sort_keys=true) }}{{ x|tojson(ensure_ascii=true) }}{{ \"😀\"|tojson(true) "
     "}}{{ [1, {\"a\": 2}]|tojson(separators=(\",\", \":\")) }}{{ [1, {\"a\": 2}]|tojson(indent=1, separators=(\",\", "
     "\":\")) }}",
     "{\"a\": [1, 2], \"b\": 1}\"h\\u00e9<b>\\\"q\\\"\"\"\\ud83d\\ude00\"[1,{\"a\":2}][\n 1,\n {\n  \"a\":2\n }\n]"},
    {"{{ (1, \"a\")|tojson }}{{ \"x\"|tojson|length }}", "[1, \"a\"]3"},
    {"{{ n is number }}{{ x is string }}{{ l is iterable }}{{ d is mapping }}{{ l is sequence }}{{ n is sequence }}{{ "
     "none is none }}{{ yes is boolean }}{{ f is float }}{{ n is integer }}{{ yes is integer }}{{ yes is number }}{{ x "
     "is iterable }}{{ d is iterable }}{{ x is sequence }}{{ d is sequence }}{{ l is mapping }}{{ n is iterable }}",
     "TrueTrueTrueTrueTrueFalseTrueTrueTrueTrueFalseTrueTrueTrueTrueTrueFalseFalse"},
    {"{{ 4 is even }}{{ 3 is odd }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ 1 is eq 1 }}{{ 1 is ne 1 }}{{ 2 "
     "is gt 1 }}{{ 1 is in [1] }}{{ \"a\" is in \"abc\" }}{{ 2 is not in [1] }}{{ true is true }}{{ 1 is true }}{{ "
     "false is false }}{{ none is not none }}{{ \"a\" is lower }}{{ \"A\" is upper }}{{ range is callable }}{{ n is "
     "sameas n }}{{ \"upper\" is filter }}{{ x is not string }}{{ 3 is lessthan 4 }}",
     "TrueTrueTrueFalseTrueFalseTrueTrueTrueTrueTrueFalseTrueFalseTrueTrueTrueTrueTrueFalseTrue"},
    {"{% set a = 1 %}{{ a }}{% set a, b = 2, 3 %}{{ a }}{{ b }}{% set (a, b) = [4, 5] %}{{ a }}{{ b }}", "12345"},
    {"{% set t %} x {{ n }} {% endset %}[{{ t }}]{% set t | upper | trim %} x {% endset %}[{{ t }}]", "[ x 3 ][X]"},
    {"{% set ns = namespace(a=1, b='z') %}{% set ns.a = ns.a + 1 %}{% set ns.c = [] %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ "
     "ns }}{{ ns.zz is defined }}",
     "2z[]<Namespace {'a': 2, 'b': 'z', 'c': []}>False"},
    {"{% set ns = namespace({\"k\": 1}, j=2) %}{{ ns.k + ns.j }}{{ dict(a=1, b=2) }}{{ dict({\"z\": 1}, y=2) }}",
     "3{'a': 1, 'b': 2}{'z': 1, 'y': 2}"},
    {"{% for i in l %}{{ i }}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ "
     "loop.revindex }}{{ loop.revindex0 }};{% endfor %}",
     "310TrueFalse332;121FalseFalse321;232FalseTrue310;"},
    {"{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {{ loop.cycle(\"a\", \"b\") }} {{ loop.previtem "
     "is defined }}{% endfor %}",
     "<3>1 a False3<1>2 b True1<2> a True"},
    {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in \"héy\" "
     "%}[{{ c }}]{% endfor %}{% for k, (a, b) in [(1, (2, 3))] %}{{ k }}{{ a }}{{ b }}{% endfor %}",
     "b=1;a=[1, {'k': None}];items=7;baitems[h][é][y]123"},
    {"{% for i in [] %}x{% else %}empty{% endfor %}{% for i in nope %}x{% else %}none{% endfor %}{% for i in [1] %}x{% "
     "else %}no{% endfor %}",
     "emptynonex"},
    {"{% for i in range(6) if i % 2 %}{{ i }}{{ loop.index }}{{ loop.length }}{% else %}n{% endfor %}{% for i in [2] "
     "if i > 5 %}x{% else %}n{% endfor %}",
     "113323533n"},
    {"{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% "
     "endfor %}!",
     "0134!"},
    {"{% for i in [1, 2] %}{% for j in [3, 4] %}{% if j == 4 %}{% break %}{% endif %}{{ i }}{{ j }}{{ loop.index }}{% "
     "endfor %}{{ loop.index }};{% endfor %}",
     "1311;2312;"},
    {"{% set v = 1 %}{% for i in [1, 2] %}{{ v }}{% set v = i + 5 %}{{ v }} {% endfor %}{{ v }}", "16 17 1"},
    {"{% for i in [1, 2] %}{{ w is defined }}{% set w = i %}{% endfor %}{{ w is defined }}{{ i is defined }}{{ loop is "
     "defined }}",
     "FalseFalseFalseFalseFalse"},
    {"{% if n > 5 %}a{% elif n == 3 %}b{% else %}c{% endif %}{% if nope %}x{% endif %}{% if n == 9 %}{% elif n == 8 "
     "%}{% else %}{% if yes %}in{% endif %}out{% endif %}",
     "binout"},
    {"{% macro fact(k) %}{{ 1 if k < 2 else k * fact(k - 1)|int }}{% endmacro %}{{ fact(10) }}", "3628800"},
    {"{% macro m() %}{{ y }}{% endmacro %}{% set y = 3 %}{{ m() }}{% macro tag(t) -%} <{{ t }}> {%- endmacro %}{{ "
     "tag(\"b\") }}{{ m.name }}",
     "3<b>m"},
    {"{% macro m(x) %}{% for i in x %}{% if i > 1 %}{{ i }}{% endif %}{% endfor %}{% endmacro %}{% set r = m([1, 2, "
     "3]) %}{{ r }}{{ r|length }}",
     "232"},
    {"{# comment {{ x }} #}a{#- b -#} c {# d #}", "ac "},
    {"{% raw %}{{ x }}{% if %}{% endraw %}{{ n }}", "{{ x }}{% if %}3"},
    {"{{ strftime_now(\"%Y-%m-%d %H:%M:%S %d %b %A %j\") }}", "2025-11-25 00:05:53 25 Nov Tuesday 329"},
    {"{{ x.y }}|{{ n.foo }}|{{ none.foo is defined }}|{{ l.foo is defined }}", "||False|False"},
    {"{{ l.index(2) }}{{ [1, 1].count(1) }}", "22"},
    {"{{ n.__class__ }}", ""},
    {"{{ \"\"[\"__class__\"] is defined }}", "False"},
    {"{{ {\"a\": 1}.a }}{{ {\"a\": {\"b\": [1, {\"c\": 5}]}}.a.b[1].c }}", "15"},
    {"{{ (n, f)[1] }}{{ [1, 2, 3][n - 1] }}{{ \"abc\"[n] is defined }}{{ {n: \"three\"}[3] }}{{ {1.0: 'q'}[1] }}",
     "1.53Falsethreeq"},
    {"{{ [[1, 2], [3]]|map(\"length\")|list }}{{ [[3, 1]]|map(\"sort\")|first }}", "[2, 1][1, 3]"},
    {"{{ \"%s\" is string }}{{ 1.5 is integer }}{{ +3 }}{{ - 3 }}{{ 3 - -3 }}{{ +f }}", "TrueFalse3-361.5"},
    {"{% set a = [1, 2, 3] %}{% set b = a + [4] %}{{ a }}{{ b }}{{ a[b|length - 2] }}", "[1, 2, 3][1, 2, 3, 4]3"},
    {"{{ u[2].t.v if u[2].age is not defined else 'x' }}", "2"},
    {"{% set z = 'a' if n == 3 else 'b' %}{{ z }}{% set z = n, f %}{{ z }}", "a(3, 1.5)"},
    {"a\n", "a"},
    {"a\n\n", "a\n"},
    {"a\r\nb\rc\n", "a\nb\nc"},
    {"{% if 1 %}\na\n{% endif %}\nb", "a\nb"},
    {"  {% if 1 %}\n  a\n  {% endif %}\n  b\n", "  a\n  b"},
    {"x  {% if 1 %}  a  {% endif %}  y", "x    a    y"},
    {"a\n  {%- if 1 -%}\n  b\n  {%- endif -%}\n  c", "abc"},
    {"  {{ n }}  \n  b", "  3  \n  b"},
    {"  {{- n -}}  \n  b", "3b"},
    {"a\n  {%+ if 1 +%}\n b{% endif %}\n\nc", "a\n  \n b\nc"},
    {"{# c #}\n{# d #}\nx", "x"},
    {"  {# c #}\n  y", "  y"},
    {"a {#- c -#} b", "ab"},
    {"  {#+ c +#}\n y", "  \n y"},
    {"a\n\t {% set q = 1 %}\t\n b", "a\n\t\n b"},
    {"{% raw %}\n a {{ b }}\n{% endraw %}\nz", "\n a {{ b }}\nz"},
    {"  {%- raw -%}\n  a\n  {%- endraw -%}\n z", "az"},
    {"a\n  {% raw %} b\n  {% endraw %}\n c", "a\n b\n c"},
    {"{{ n }}\n\n{{ n }}\n", "3\n\n3"},
    {"{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\n", "  1\n  2\n"},
    {"{% for i in [1, 2] -%}\n  {{ i }}\n{%- endfor %}\n", "12"},
    {"  {% if 1 %}{% if 1 %}\n x\n  {% endif %}  {% endif %}\ny", " x\n  y"},
    {"{{ 'a\nb' }}", "a\nb"},
    {"{{ 'a\r\nb' }}", "a\nb"},
    {"\n\n{% if 1 %}x{% endif %}", "\n\nx"},
    {"{{ '}}' }}{{ '%}' }}{{ {'a': {'b': 1}} }}{{ {'a': 1}}}", "}}%}{'a': {'b': 1}}{'a': 1}"},
    {"{%if n%}a{%endif%}{{n}}{{-n-}} {{n}}", "a333"},
    {"{{\n  n\n  +\n 1 }}", "4"},
    {"{% set a = [\n 1,\n 2,\n] %}{{ a }}", "[1, 2]"},
    {"a　{%- if 1 %}b{% endif %}", "ab"},
    {"{% if 1 %} \n x{% endif %}", " \n x"},
    {"{% if 1 -%} \n\n x{% endif %}\n  {% if 1 %}\nq{% endif %}", "xq"},
    {"{{ n -}}\n  {% if 1 %}x{% endif %}", "3x"},
    {"{{-1}}{{+2}} {{ -1 }}", "12 -1"},
    {"{{ [1,2,] }}{{ (1,2,) }}{{ {'a':1,} }}", "[1, 2](1, 2){'a': 1}"},
    {"{{ {} }}{%- set _ = 1 -%} z", "{}z"},
    {"{%- if true %} {{- 1 }}{% endif -%}  ", "1"},
    {"{{ 'a'\n|upper }}", "A"},
    {"{# a {# b #} c", " c"},
    {"a{%-raw-%} b {%-endraw-%} c", "abc"},
    {"{{ u[0]['name'][0:1]|lower ~ u[1].name[-1] }}", "bl"},
    {"{{ not 1 in [1] }}{{ not 1 == 2 and true }}", "FalseTrue"},
    {"{{ 1 if 1 in [1] else 2 }}{{ (1 if n else 2) + 1 }}", "12"},
    {"{{ n|string|length }}{{ (n|string)[0] }}{{ n|string ~ 'a' }}", "133a"},
    {"{{ 'a' ~ 'b' + 'c' }}{{ 1 ~ 2 * 3 }}", "abc16"},
    {"{{ 2 * 3 % 4 }}{{ 10 - 2 - 3 }}{{ 100 // 7 // 2 }}", "257"},
    {"{{ d.a[1]['k'] is none }}{{ d['a'][0] + 1 }}", "True2"},
    {"{{ loop }}", ""},
    {"{% for x in u %}{{ x.name }}{% endfor %}{{ x }}", "BoalCyhé<b>\"q\""},
    {"{% for i in l|sort|reverse %}{{ i }}{% endfor %}", "321"},
    {"{% for i in l, n %}{{ i }}{% endfor %}", "[3, 1, 2]3"},
    {"{% if n == 3 and (yes or nope) %}q{% endif %}{% if not nope %}w{% endif %}", "qw"},
    {"{{ 'x'|default(nope)|default('z') }}", "x"},
    {"{{ '' if nope else 'e' }}{{ nope or 'o' }}", "eo"},
    {"{{ [nope]|length }}{{ nope|upper }}{{ nope|trim }}{{ nope|string|length }}{{ nope|list }}{{ nope|first }}",
     "10[]"},
    {"{{ nope|sort|list }}{{ nope|map('upper')|list }}{{ nope|items|list }}", "[][][]"},
    {"{{ l[nope] }}", ""},
    {"{{ l['a'] }}{{ l['1'] }}", ""},
    {"{{ l[1.0] }}|{{ x[1.5] }}", "|"},
    {"{{ 'ab' is iterable and 'ab' is not mapping }}", "True"},
    {"{{ 'abc'.split('b', -1) }}{{ 'abc'.replace('z', 'y') }}", "['a', 'c']abc"},
    {"{{ {'a': [1,2]}.a|last }}{{ [[1,2],[3,4]][1][0] }}", "23"},
    {"{{ [3, 1]|sort|first }}{{ (d|dictsort)[0] }}{{ (d|dictsort|first)[1] }}",
     "1('a', [1, {'k': None}])[1, {'k': None}]"},
    {"{% set ns = namespace(x=0) %}{% for i in range(5) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "10"},
    {"{% set s = 'ab' %}{% for c in s %}{% set s = s ~ c %}{{ s }}{% endfor %}{{ s }}", "abaabbab"},
    {"{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "B"},
    {"{% set x = 'o' %}{% macro a(x='i') %}{{ x }}{% endmacro %}{{ a() }}{{ a(x) }}{{ x }}", "ioo"},
    {"{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(3) }}", "3"},
    {"{{ ('a', 'b')|join }}{{ 'a b'.split()|map('upper')|list|join('_') }}", "abA_B"},
    {"{% for m in u %}{%- if loop.first %}{{ m.name }}{% elif loop.last %}.{% else %},{% endif %}{% endfor %}", "Bo,."},
    {"{{ u|map(attribute='name')|map('lower')|sort|join(',') }}", "al,bo,cy"},
    {"{{ u|selectattr('t.v','gt',0)|rejectattr('name','in',['Bo'])|map(attribute='name')|join }}", "Cy"},
    {"{% for r, g in [['a', 1], ['b', 2]] %}{{ r }}{{ g }}{% endfor %}", "a1b2"},
    {"{{ 1.0 * 3 }}{{ 3 * 0.5 }}{{ 1e308 * 10 }}{{ 2 ** 0.5 }}", "3.01.5inf1.4142135623730951"},
    {"{{ true + 1 }}{{ true * 3 }}{{ 5 / true }}", "235.0"},
    {"{{ 2.675|round(2) }}{{ 1234.5|round(-2) }}{{ 7|round(1) }}{{ true|round }}", "2.671200.071"},
    {"{{ 0|select|list }}{{ none|map('upper')|list }}{{ false|selectattr('a')|list }}", "[][][]"},
    {"{{ 5|safe ~ 1 }}{{ (5|safe)[0] }}", "515"},
    {"{{ l * true }}{{ true * 'a' }}", "[3, 1, 2]a"},
};

static const struct {
    const char *source, *says; /* behind "template: " */
} refused[] = {
    {"{{ nope }}|{{ nope.x is defined }}", "line 1: 'nope' is undefined"},
    {"{{ 1 // 0 }}", "line 1: division by zero"},
    {"{{ 1 % 0 }}", "line 1: division by zero"},
    {"{{ \"a\" + 1 }}", "line 1: str + int is not possible"},
    {"{{ \"a\" + none }}", "line 1: str + None is not possible"},
    {"{{ nope + \"a\" }}", "line 1: 'nope' is undefined"},
    {"{{ 1 < \"a\" }}", "line 1: int and str have no order"},
    {"{{ nope < 1 }}", "line 1: 'nope' is undefined"},
    {"{{ 1 in \"a\" }}", "line 1: 'in' a string wants a string, not int"},
    {"{{ \"a\" in none }}", "line 1: None cannot be gone through"},
    {"{{ \"a,b,,c\".split(\",\") }}{{ \" a  b \".split() }}{{ \"a,b,c\".split(\",\", 1) }}{{ \"a,b,c\".rsplit(\",\", "
     "1) }}{{ \"a b c d\".split(None, 2) }}{{ \"\".split() }}{{ \"\".split(\",\") }}{{ \"abc\".split(\"\") }}",
     "line 1: split with an empty separator"},
    {"{{ \", \".join([1]) }}", "line 1: join wants a string, not int"},
    {"{{ 5|length }}", "line 1: int has no length"},
    {"{{ [1, \"a\"]|sort }}", "line 1: int and str have no order"},
    {"{{ \"a\"|nofilter }}", "line 1: there is no filter 'nofilter'"},
    {"{{ \"a\" is notest }}", "line 1: there is no test 'notest'"},
    {"{{ nope|tojson }}", "line 1: undefined cannot be written as JSON"},
    {"{{ n is defined and n is number or false }}{{ not n is string }}{{ n is string if false else 7 }}",
     "line 1: unexpected 'false', }} was expected"},
    {"{% set a, b = [1] %}", "line 1: 1 values for 2 names"},
    {"{% set q = {} %}{% set q.a = 1 %}", "line 1: only a namespace's attributes can be set"},
    {"{% for i in none %}x{% endfor %}", "line 1: None cannot be gone through"},
    {"{% for i in 5 %}x{% endfor %}", "line 1: int cannot be gone through"},
    {"{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "line 1: the macro 'm' does not take these arguments"},
    {"{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}", "line 1: the macro 'm' does not take these arguments"},
    {"{{ raise_exception(\"no: \" ~ n) }}", "line 1: no: 3"},
    {"{{ x.y.z }}", "line 1: 'y' is undefined"},
    {"{{ none.foo.bar }}", "line 1: 'foo' is undefined"},
    {"{{ n() }}", "line 1: int cannot be called"},
    {"{{ nope() }}", "line 1: 'nope' is undefined"},
    {"{{ x.nomethod() }}", "line 1: 'nomethod' is undefined"},
    {"{{ l.append(1) }}", "line 1: a template must not change a list"},
    {"{{ d.update({}) }}", "line 1: a template must not change a dict"},
    {"{{ range(100001) }}", "line 1: range of more than 100000"},
    {"{{ range(1, 5, 0) }}", "line 1: range with a step of 0"},
    {"{{ range(\"a\") }}", "line 1: range wants integers, not str"},
    {"{{ (l|length) - 1 }}{{ l|length - 1 }}{{ -l|length }}", "line 1: int - list is not possible"},
    {"{{ 'a' if }}", "line 1: unexpected }}, an expression was expected"},
    {"{{ ", "line 1: the tag has no end"},
    {"{% if x %}", "line 1: the template ends, but elif was expected"},
    {"{% endif %}", "line 1: unexpected 'endif', another statement was expected"},
    {"{% for %}{% endfor %}", "line 1: unexpected %}, a name was expected"},
    {"{% foo %}", "line 1: unexpected 'foo', another statement was expected"},
    {"{{ a b }}", "line 1: unexpected 'b', }} was expected"},
    {"{{ \"unclosed }}", "line 1: the string has no end"},
    {"{# unclosed", "line 1: the comment has no end"},
    {"{% raw %} unclosed", "line 1: {% raw %} has no {% endraw %}"},
    {"{{ (1 }}", "line 1: unexpected '}'"},
    {"{{ 1) }}", "line 1: unexpected ')'"},
    {"{% break %}", "line 1: unexpected 'break', a for loop round it was expected"},
    {"{% set x %}", "line 1: the template ends, but endset was expected"},
    {"{{ [1, 2 }}", "line 1: unexpected '}'"},
    {"{{ f(a=1, 2) }}", "line 1: unexpected '2', a named argument was expected"},
    {"{% elif x %}", "line 1: unexpected 'elif', another statement was expected"},
    {"{{ x is defined is none }}", "line 1: unexpected 'is', the end of the test was expected"},
    {"{{ 1 +}}", "line 1: unexpected }}, an expression was expected"},
    {"{{ @ }}", "line 1: unexpected character '@'"},
    {"{% if 1 %}a{% else %}b{% elif 1 %}c{% endif %}", "line 1: unexpected 'elif', endif was expected"},
    {"{% macro m() %}x{% endmacro m %}{{ m() }}", "line 1: unexpected 'm', %} was expected"},
    {"{% generationx %}", "line 1: unexpected 'generationx', another statement was expected"},
    {"{{ nope.foo|default('z') }}", "line 1: 'nope' is undefined"},
    {"{{ d.nope|default('z') }}{{ d.nope.x|default('z') }}", "line 1: 'nope' is undefined"},
    {"{{ nope|int }}", "line 1: 'nope' is undefined"},
    {"{{ nope[0] }}", "line 1: 'nope' is undefined"},
    {"{{ -nope }}", "line 1: 'nope' is undefined"},
    {"{{ d.b.c.e }}", "line 1: 'c' is undefined"},
    {"{{ 5 is divisibleby 0 }}", "line 1: division by zero"},
    {"{{ {[1]: 2} }}", "line 1: list cannot be a key"},
    {"{% for a, b in [1] %}{% endfor %}", "line 1: int cannot be gone through"},
    {"{{ 2.0 is even }}{{ 2.5 is odd }}{{ -3 is odd }}{{ -3 is divisibleby -1 }}",
     "line 1: divisibleby wants an integer, not nothing"},
    {"{{ 5|indent }}", "line 1: indent wants a string, not int"},
    {"{{ n[1:] }}", "line 1: int cannot be sliced"},
};

static status render(const char *source, const char *vars, str *out, error *e) {
    chat_template *t;
    json_t *v;
    TRY(json_parse(&v, vars, strlen(vars), "variables", e));
    status st = template_open(&t, source, strlen(source), e);
    if (st == OK) st = template_render(t, v, out, e);
    template_close(t);
    json_decref(v);
    return st;
}

static void test_renders(void **state) {
    (void)state;
    size_t n = sizeof renders / sizeof *renders, bad = 0;
    setenv("TZ", "UTC", 1);
    tzset();
    for (size_t i = 0; i < n; i++) {
        str out = {0};
        error e = {0};
        status st = render(renders[i].source, variables, &out, &e);
        const char *got = st == OK ? (out.p ? out.p : "") : e.text;
        if (st != OK || strcmp(got, renders[i].expected)) {
            bad++;
            printf("template: %s\nexpected: %s\ngot:      %s\n", renders[i].source, renders[i].expected, got);
        }
        str_free(&out);
    }
    printf("compared %zu rendered templates with jinja2's, %zu differ\n", n, bad);
    assert_int_equal(bad, 0);
}

static void test_refused(void **state) {
    (void)state;
    size_t n = sizeof refused / sizeof *refused, bad = 0;
    for (size_t i = 0; i < n; i++) {
        str out = {0};
        error e = {0};
        status st = render(refused[i].source, variables, &out, &e);
        if (st == OK || st != e.code || out.n || strncmp(e.text, "template: ", 10) ||
            strcmp(e.text + 10, refused[i].says)) {
            bad++;
            printf("template: %s\nexpected: %s\ngot:      %s\n", refused[i].source, refused[i].says,
                   st ? e.text : out.p);
        }
        str_free(&out);
    }
    printf("compared %zu errors, %zu differ\n", n, bad);
    assert_int_equal(bad, 0);
}

/* What a rendering of this source says when it fails; a static sentence if it does not. */
static status outcome(const char *source, size_t n, error *e) {
    chat_template *t;
    str out = {0};
    json_t *v = json_object();
    status st = template_open(&t, source, n, e);
    if (st == OK) st = template_render(t, v, &out, e);
    template_close(t);
    json_decref(v);
    str_free(&out);
    return st;
}

static void test_codes(void **state) {
    (void)state;
    error e;
    assert_int_equal(outcome("{{ raise_exception('no') }}", 27, &e), ERR_ARG);
    assert_string_equal(e.text, "template: line 1: no");
    assert_int_equal(outcome("\n\n{{ a + 1 }}", 13, &e), ERR_ARG);
    assert_string_equal(e.text, "template: line 3: 'a' is undefined");
    assert_int_equal(outcome("{% if %}", 8, &e), ERR_FORMAT);
    assert_int_equal(outcome("{% include 'x' %}", 17, &e), ERR_UNSUPPORTED);
    assert_int_equal(outcome("{% for x in y recursive %}{% endfor %}", 38, &e), ERR_UNSUPPORTED);
    assert_int_equal(outcome("{{ f(*x) }}", 11, &e), ERR_UNSUPPORTED);
    assert_int_equal(outcome("a\xff", 2, &e), ERR_FORMAT);
    assert_int_equal(outcome("a\0b", 3, &e), OK);
    assert_int_equal(outcome("", 0, &e), OK);
}

/* Templates that would never end, or fill the memory, or the stack. Each is one clear error; the sentences are
 * compared, not the times. */
static void test_limits(void **state) {
    (void)state;
    static const struct {
        const char *source, *says;
    } rows[] = {
        {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "need more than"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper"},
        {"{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}", "nested deeper"},
        {"{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}", "nested deeper"},
        {"{% set s = namespace(x='ab') %}{% for i in range(99) %}{% set s.x = s.x + s.x %}{% endfor %}",
         "a string of more than"},
        {"{% set s = namespace(x=[1]) %}{% for i in range(99) %}{% set s.x = s.x + s.x %}{% endfor %}", ""},
        {"{% set s = namespace(x=[]) %}{% for i in range(999) %}{% set s.x = [s.x, s.x] %}{% endfor %}{{ s.x }}", ""},
        {"{% set s = namespace(x=[]) %}{% for i in range(999) %}{% set s.x = [s.x] %}{% endfor %}{{ s.x == [s.x] }}{{ "
         "s.x }}",
         "nested deeper"},
        {"{% set s = namespace() %}{% set s.s = s %}{{ s }}", "nested deeper"},
        {"{% set s = namespace() %}{% set s.s = [s] %}{{ s.s == s.s }}{{ s.s < s.s }}{{ s|tojson }}", ""},
        {"{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}", "the text has more than"},
        {"{{ 'x' * 99999999 }}", "a product of more than"},
        {"{{ 'x' * 9223372036854775807 }}", "a product of more than"},
        {"{{ ([1] * 9999999)|length }}", "need more than"},
        {"{{ [range(9999)] * 9999 }}", "the text has more than"},
        {"{% set r = range(99999)|list %}{% for i in r %}{{ i in r }}{% endfor %}", "does not end within"},
        {"{% set r = range(99999)|list %}{% for i in r %}{% set x = r|sort %}{% endfor %}", ""},
        {"{{ 'a'.replace('', 'x' * 999999).replace('x', 'y' * 999999) }}", "a string of more than"},
        {"{% set x = 'ab' * 999999 %}{% for i in range(99999) %}{% set y = x.upper() %}{% endfor %}", ""},
        {"{% set x = 'ab' * 999999 %}{% for i in range(99999) %}{{ x|length }}{% endfor %}", "does not end within"},
        {"{% for i in range(99999) %}{{ 9 ** 9 ** 9 }}{% endfor %}", "beyond 64 bits"},
        {"{{ {'a': range(9999)|list}|tojson(indent=65) }}", "an indent of more than"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        error e = {0};
        status st = outcome(rows[i].source, strlen(rows[i].source), &e);
        printf("%.70s: %s\n", rows[i].source, e.text);
        assert_int_equal(st, ERR_ARG);
        assert_non_null(strstr(e.text, rows[i].says));
        assert_memory_equal(e.text, "template: line 1: ", 18);
    }
}

/* n copies of a piece, after a beginning. */
static str repeated(const char *begin, const char *piece, size_t n, const char *end) {
    str s = {0};
    str_puts(&s, begin);
    while (n--) str_puts(&s, piece);
    str_puts(&s, end);
    return s;
}

static void test_deep_sources(void **state) {
    (void)state;
    static const struct {
        const char *begin, *piece, *end;
        status wanted;
    } rows[] = {
        {"{{ ", "(", "", ERR_FORMAT},
        {"{{ ", "[", "", ERR_FORMAT},
        {"{{ ", "{1:", "", ERR_FORMAT},
        {"{{ ", "not ", "1 }}", ERR_FORMAT},
        {"{{ ", "-", "1 }}", ERR_FORMAT},
        {"", "{% if 1 %}", "", ERR_FORMAT},
        {"{{ ", "1 if 1 else ", "1 }}", ERR_FORMAT},
        {"{{ 1", " + 1", " }}", ERR_ARG},
        {"{{ x", ".x", " }}", ERR_ARG},
        {"{{ x", "|list", " }}", ERR_ARG},
        {"{{ 1", " and 1", " }}", ERR_ARG},
        {"{{ 1", " < 2", " }}", OK},
        {"{{ [", "1, ", "] }}", OK},
        {"{% if 0 %}", "{% elif 0 %}", "{% endif %}", OK},
        {"", "{% for x in [1] %}", "", ERR_FORMAT},
        {"{% set ", "(", "", ERR_FORMAT},
        {"{{ 1 is in ", "(", "", ERR_FORMAT},
        {"{% set x", " | upper", "%}{% endset %}", ERR_ARG},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        error e = {0};
        str s = repeated(rows[i].begin, rows[i].piece, 5000, rows[i].end);
        status st = outcome(s.p, s.n, &e);
        printf("5000 x '%s': %d %s\n", rows[i].piece, st, e.text);
        str_free(&s);
        assert_int_equal(st, rows[i].wanted);
    }
    str big = repeated("", "{{ 1 }}", 80000, "");
    error e;
    assert_int_equal(outcome(big.p, big.n, &e), ERR_FORMAT);
    str_free(&big);
}

/* A long conversation whose text a template puts together piece by piece must not need quadratic memory. */
static void test_growing_text(void **state) {
    (void)state;
    static const char source[] = "{% set ns = namespace(t='') %}{% for i in range(20000) %}"
                                 "{% set ns.t = ns.t + 'message number ' ~ i ~ ', of some length; ' %}{% endfor %}"
                                 "{{ ns.t|length }}";
    str out = {0};
    error e = {0};
    status st = render(source, "{}", &out, &e);
    printf("20000 additions: %s\n", st == OK ? out.p : e.text);
    assert_int_equal(st, OK);
    assert_string_equal(out.p, "748890");
    str_free(&out);
}

/* Texts that were joined share bytes; adding to one must not change another. */
static void test_joined_texts_do_not_change(void **state) {
    (void)state;
    static const char source[] =
        "{% set long = 'x' * 300 %}{% set a = long + 'a' %}{% set b = a + 'b' %}{% set c = a + 'c' %}"
        "{% set d = b + 'd' %}{{ a[-1] }} {{ b[-2:] }} {{ c[-2:] }} {{ d[-3:] }} {{ (a + '')[-1] }}";
    str out = {0};
    error e = {0};
    assert_int_equal(render(source, "{}", &out, &e), OK);
    assert_string_equal(out.p, "a ab ac abd a");
    str_free(&out);
}

static void test_output_is_added(void **state) {
    (void)state;
    str out = {0};
    error e = {0};
    str_puts(&out, "before ");
    assert_int_equal(render("{{ x }}", "{\"x\": 1}", &out, &e), OK);
    assert_string_equal(out.p, "before 1");
    assert_int_equal(render("more {{ x + 'a' }}", "{\"x\": 1}", &out, &e), ERR_ARG);
    assert_string_equal(out.p, "before 1");
    str_free(&out);
}

static void test_deep_variables(void **state) {
    (void)state;
    str s = repeated("{\"x\": ", "[", 1000, "");
    for (int i = 0; i < 1000; i++) str_putc(&s, ']');
    str_putc(&s, '}');
    str out = {0};
    error e = {0};
    assert_int_equal(render("{{ x }}", s.p, &out, &e), ERR_ARG);
    printf("variables 1000 deep: %s\n", e.text);
    assert_int_equal(render("{{ y is defined }}", s.p, &out, &e), OK); /* what is not asked for is not read */
    str_free(&s);
    str_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_renders),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_deep_sources),
        cmocka_unit_test(test_growing_text),
        cmocka_unit_test(test_joined_texts_do_not_change),
        cmocka_unit_test(test_output_is_added),
        cmocka_unit_test(test_deep_variables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
