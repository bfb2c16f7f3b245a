package cli

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDump bounds what people are shown of a payload that is no JSON.
const maxDump = 4 << 10

// writePayload writes JSON indented, other text as it is, and anything else as hex. Nothing of it can
// steer a terminal.
func writePayload(w io.Writer, b []byte) {
	var out bytes.Buffer
	switch {
	case len(b) == 0:
		fmt.Fprintln(w, "(empty)")
		return
	case utf8.Valid(b) && json.Indent(&out, b, "", "  ") == nil:
		fmt.Fprintln(w, printableLines(out.String()))
		return
	}
	shown := b[:min(len(b), maxDump)]
	if mostlyText(b) {
		fmt.Fprintln(w, printableLines(strings.ToValidUTF8(string(shown), "")))
	} else {
		fmt.Fprint(w, hex.Dump(shown))
	}
	if len(shown) < len(b) {
		fmt.Fprintf(w, "(%d bytes more; --raw FILE writes all)\n", len(b)-len(shown))
	}
}

// mostlyText: valid UTF-8 of which no character but white space is invisible.
func mostlyText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) && r != '\n' && r != '\r' && r != '\t' {
			return false
		}
	}
	return true
}

// printable replaces what could steer a terminal or break a table: names and words of strangers.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// printableLines leaves lines as they are.
func printableLines(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// abbreviate shortens s to n characters.
func abbreviate(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
