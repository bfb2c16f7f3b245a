package web

import (
	"context"
	"net/http"
	"time"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func (h *handler) watchTwins(w http.ResponseWriter, r *http.Request) {
	req := &doppelv1.WatchTwinsRequest{}
	serveLines(w, r, req, func(ctx context.Context, l *lines) error {
		return h.watches.WatchTwins(ctx, req, func(m *doppelv1.WatchTwinsResponse) error { return l.write(m) })
	})
}

func (h *handler) watchAlerts(w http.ResponseWriter, r *http.Request) {
	req := &doppelv1.WatchAlertsRequest{}
	serveLines(w, r, req, func(ctx context.Context, l *lines) error {
		return h.watches.WatchAlerts(ctx, req, func(m *doppelv1.WatchAlertsResponse) error { return l.write(m) })
	})
}

// serveLines runs a watch as newline-delimited JSON. An error before the first line is an ordinary
// answer with its status; behind it, it is the last line.
func serveLines(w http.ResponseWriter, r *http.Request, req proto.Message, watch func(context.Context, *lines) error) {
	if err := parseQuery(r.URL.Query(), req); err != nil {
		writeError(w, status.Convert(err).Proto())
		return
	}
	l := &lines{w: w, rc: http.NewResponseController(w)}
	err := watch(called(r), l) //nolint:contextcheck // it is that of the request, and more
	if r.Context().Err() != nil || l.broken {
		return // nobody reads on
	}
	st := status.Convert(err).Proto()
	if err == nil { // watches end only with an error
		st = &rpcstatus.Status{Code: int32(codes.Unavailable), Message: "the watch ended"}
	}
	if !l.begun {
		writeError(w, st)
		return
	}
	l.end(st)
}

// lines writes messages, one JSON object a line, each at once.
type lines struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	buf    []byte
	begun  bool
	broken bool // a write failed
}

func (l *lines) write(m proto.Message) error {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.Header().Set("Cache-Control", "no-store")
		l.w.Header().Set("X-Accel-Buffering", "no") // proxies must not hold lines back
		l.w.WriteHeader(http.StatusOK)
	}
	var err error
	if l.buf, err = marshal.MarshalAppend(l.buf[:0], m); err != nil {
		return err
	}
	return l.put(append(l.buf, '\n'))
}

func (l *lines) end(st *rpcstatus.Status) {
	body, err := marshal.Marshal(st)
	if err != nil { // details of a type nobody knows
		return
	}
	_ = l.put(append(append([]byte(`{"error":`), body...), "}\n"...)) // the client may be gone
}

// put writes and flushes; a client that does not take it in time is cut off.
func (l *lines) put(line []byte) error {
	_ = l.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // writers without deadlines do without
	_, err := l.w.Write(line)
	if err == nil {
		err = l.rc.Flush()
	}
	if err != nil {
		l.broken = true
		return status.Error(codes.Canceled, "the client is gone")
	}
	return nil
}
