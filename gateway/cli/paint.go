package cli

import (
	"io"
	"os"
	"regexp"

	"golang.org/x/term"
)

// Colours of a terminal.
const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	green  = "\x1b[32m"
	faint  = "\x1b[2m"
	plain  = "\x1b[0m"
)

// shades are the words of tables that have a colour.
var shades = map[string]string{
	"CRITICAL": red, "FIRING": red, "WARNING": yellow, "PENDING": yellow, "RESOLVED": green,
	"quarantined": red, "unreachable": red, "offline": faint, "online": green,
}

// shaded finds them where a table has them: between the white space of columns, not in what people wrote.
var shaded = regexp.MustCompile(`(?m)(^| {2})(CRITICAL|FIRING|WARNING|PENDING|RESOLVED|quarantined|unreachable|offline|online)( {2}|$)`)

// colourful says whether w is a terminal of somebody who wants colours (https://no-color.org).
func colourful(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// paint colours a table that was lined up already, because lining up counts bytes.
func paint(text []byte) []byte {
	for range 2 { // neighbours share their white space
		text = shaded.ReplaceAllFunc(text, func(match []byte) []byte {
			part := shaded.FindSubmatch(match)
			word := string(part[2])
			return append(append(append([]byte{}, part[1]...), shades[word]+word+plain...), part[3]...)
		})
	}
	return text
}
