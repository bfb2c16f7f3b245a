package web

import (
	"net/http"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
)

// marshal is JSON as the contract has it.
var marshal = protojson.MarshalOptions{EmitUnpopulated: true}

// statusClientClosed is what nginx made of a client that went away; nobody reads it.
const statusClientClosed = 499

// httpStatus is the mapping of google.rpc.Code.
func httpStatus(c codes.Code) int {
	switch c {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Canceled:
		return statusClientClosed
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.Unknown, codes.Internal, codes.DataLoss:
		return http.StatusInternalServerError
	default:
		return http.StatusInternalServerError
	}
}

// writeError answers with an error in the form of google.rpc.Status.
func writeError(w http.ResponseWriter, st *rpcstatus.Status) {
	writeStatus(w, httpStatus(codes.Code(st.GetCode())), st)
}

func writeStatus(w http.ResponseWriter, code int, st *rpcstatus.Status) {
	body, err := marshal.Marshal(st)
	if err != nil { // details of a type nobody knows
		body = []byte(`{"code":13,"message":"internal error","details":[]}`)
	}
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="doppel"`)
	}
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) //nolint:gosec // JSON, and browsers are told not to guess; the client may be gone
}
