package web

import (
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed assets
var assets embed.FS

// newPage serves the live page: files made by hand, no build step, nothing from elsewhere. The page
// is a client of the JSON API like any other.
func newPage() (http.Handler, error) {
	index, err := fs.ReadFile(assets, "assets/index.html")
	if err != nil {
		return nil, fmt.Errorf("read the page: %w", err)
	}
	files := http.FileServerFS(assets)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache") // a new node brings a new page
		if r.URL.Path == "/" {
			h.Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write(index) // the client may be gone
			return
		}
		if strings.HasSuffix(r.URL.Path, "/") {
			notFound(w, r)
			return
		}
		files.ServeHTTP(w, r)
	}), nil
}
