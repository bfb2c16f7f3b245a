package web

import (
	"context"
	"net"
	"net/http"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/gateway/auth"
)

// guarded serves what is no RPC to those who may ask for it. Calls of the API come to the guard of the
// services, health is for everybody, and the page has nothing that it does not ask the API for.
func (h *handler) guarded(what string, next http.Handler) http.Handler {
	if h.guard == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := auth.Credentials{Authorization: authorization(r.Header), Certificates: auth.Verified(r.TLS), Address: r.RemoteAddr}
		ctx, err := h.guard.Enter(r.Context(), what, c)
		if err != nil {
			writeError(w, status.Convert(err).Proto())
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// authorization is the one header of its name; several are none, because proxies disagree about which one
// counts.
func authorization(h http.Header) string {
	switch values := h.Values("Authorization"); len(values) {
	case 0:
		return ""
	case 1:
		return values[0]
	default:
		return "several"
	}
}

// called is a context as a gRPC server would make it of a request: with who is at the other end.
func called(r *http.Request) context.Context {
	ctx := r.Context()
	if values := r.Header.Values("Authorization"); len(values) > 0 {
		md := metadata.MD{}
		md.Append("authorization", values...)
		ctx = metadata.NewIncomingContext(ctx, md)
	}
	p := &peer.Peer{Addr: remote(r.RemoteAddr)}
	if r.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{State: *r.TLS, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	}
	return peer.NewContext(ctx, p)
}

// remote is the address of who is at the other end of a request.
type remote string

var _ net.Addr = remote("")

// Network implements net.Addr.
func (remote) Network() string { return "tcp" }

// String implements net.Addr.
func (r remote) String() string { return string(r) }
