# A file as a C++ array: cmake -DINPUT=FILE -DOUTPUT=FILE -P embed_font.cmake
file(READ ${INPUT} bytes HEX)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
file(WRITE ${OUTPUT} "namespace paro::viewer {\nextern const unsigned char kFont[];\nextern const int kFontSize;\n"
     "const unsigned char kFont[] = {${bytes}};\nconst int kFontSize = sizeof kFont;\n}  // namespace paro::viewer\n")
