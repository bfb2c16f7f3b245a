package web

import (
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// livez says that the process works: it answers.
func (h *handler) livez(w http.ResponseWriter, _ *http.Request) {
	writeOK(w)
}

// readyz says whether the node can serve, and why not.
func (h *handler) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := h.ready(); err != nil {
		writeError(w, status.New(codes.Unavailable, err.Error()).Proto())
		return
	}
	writeOK(w)
}

func writeOK(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("ok\n")) // the prober may be gone
}
