package web

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// serveREST hands a call to the transcoder, whose router takes the first colon of a path for the
// start of a verb and decodes what it is given: ids go to it escaped. The transcoder blames itself for
// a parameter that does not exist and takes no body but declared JSON; curl declares forms.
func (h *handler) serveREST(w http.ResponseWriter, r *http.Request) {
	path, ok := h.routerPath(r.Method, r.URL.EscapedPath())
	if !ok || !validQuery(r.URL.Query()) {
		writeError(w, status.New(codes.InvalidArgument, "the path or a parameter is not well escaped UTF-8").Proto())
		return
	}
	u := *r.URL
	u.Path, u.RawPath = path, ""
	r2 := r.WithContext(r.Context())
	r2.URL = &u
	if route, ok := find(h.routes, r.Method, path); ok {
		q, err := route.parameters(r.URL.Query())
		u.RawQuery = q.Encode()
		switch {
		case err != nil:
		case route.body == nil:
			err = dropBody(r2)
		default:
			err = route.takeBody(r2)
		}
		if err != nil {
			writeError(w, status.Convert(err).Proto())
			return
		}
	} else if others := methods(h.routes, path); len(others) > 0 {
		w.Header().Set("Allow", strings.Join(others, ", "))
		writeStatus(w, http.StatusMethodNotAllowed, status.Newf(codes.Unimplemented, "%s is not for this path, but %s", r.Method, strings.Join(others, ", ")).Proto())
		return
	}
	if ct := r2.Header.Get("Content-Type"); r2.ContentLength != 0 && (ct == "" || ct == formType) {
		r2.Header = r2.Header.Clone()
		r2.Header.Set("Content-Type", jsonType)
	}
	h.rest.ServeHTTP(w, r2)
}

// dropBody takes the body from a call that has none: an empty message says as little as nothing.
func dropBody(req *http.Request) error {
	text, err := io.ReadAll(io.LimitReader(req.Body, 1024))
	if err != nil {
		return status.Errorf(codes.Canceled, "the body ends: %v", err)
	}
	if compact := strings.Join(strings.Fields(string(text)), ""); compact != "" && compact != "{}" {
		return badQuery("body", "this call takes none: everything goes into the path and the query")
	}
	req.Body, req.ContentLength = http.NoBody, 0
	return nil
}

// takeBody reads and checks the body. None at all is an empty message.
func (r *route) takeBody(req *http.Request) error {
	if req.Header.Get("Content-Encoding") == "gzip" {
		if err := inflate(req); err != nil {
			return err
		}
	}
	text, err := io.ReadAll(req.Body)
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return status.Errorf(codes.ResourceExhausted, "the body has more than %d bytes", maxBody)
	case err != nil:
		return status.Errorf(codes.Canceled, "the body ends: %v", err)
	}
	if len(text) == 0 {
		text = []byte("{}")
	}
	if readable(req.Header) {
		if err := r.checkBody(text); err != nil {
			return err
		}
	}
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return nil
}

// inflate makes a compressed body a plain one. Behind it, bytes that are not gzip would be the server's mistake.
func inflate(req *http.Request) error {
	z, err := gzip.NewReader(req.Body)
	if err != nil {
		return badQuery("body", "is not gzip, as its Content-Encoding says")
	}
	text, err := io.ReadAll(io.LimitReader(z, maxBody+1))
	switch {
	case len(text) > maxBody:
		return status.Errorf(codes.ResourceExhausted, "the body has more than %d bytes", maxBody)
	case err != nil:
		return badQuery("body", "is not gzip, as its Content-Encoding says")
	}
	req.Header = req.Header.Clone()
	req.Header.Del("Content-Encoding")
	req.Body = io.NopCloser(bytes.NewReader(text))
	return nil
}

// readable says whether the body is what checkBody takes; the transcoder sees to everything else.
func readable(h http.Header) bool {
	encoding, kind := h.Get("Content-Encoding"), h.Get("Content-Type")
	kind, _, _ = strings.Cut(kind, ";")
	return (encoding == "" || encoding == "identity") && (kind == "" || kind == formType || kind == jsonType)
}

// What curl declares unless it is told otherwise, and what it should.
const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

func validQuery(q url.Values) bool {
	for name, values := range q {
		if !utf8.ValidString(name) || slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) }) {
			return false
		}
	}
	return true
}

// routerPath escapes the ids of a path, but for the colon before a verb.
func (h *handler) routerPath(method, escaped string) (string, bool) {
	parts := strings.Split(strings.TrimPrefix(escaped, "/v1/"), "/")
	for i := 1; i < len(parts); i++ {
		part, verb := parts[i], ""
		if i == len(parts)-1 && i == 1 {
			part, verb = cutVerb(part, h.verbs[parts[0]][method])
		}
		id, err := url.PathUnescape(part)
		if err != nil || !utf8.ValidString(id) {
			return "", false
		}
		parts[i] = strings.ReplaceAll(url.PathEscape(id), ":", "%3A") + verb
	}
	return "/v1/" + strings.Join(parts, "/"), true
}

func cutVerb(part string, verbs []string) (id, verb string) {
	for _, v := range verbs {
		if id, ok := strings.CutSuffix(part, ":"+v); ok && id != "" {
			return id, ":" + v
		}
	}
	return part, ""
}
