package web

import (
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// verbs are the custom methods of single resources, by collection and HTTP method. Only these end
// an id; every other colon belongs to it (MAC addresses have five).
var verbs = map[string]map[string][]string{
	"twins":  {http.MethodPost: {"replay", "reset"}},
	"alerts": {http.MethodPost: {"acknowledge"}, http.MethodGet: {"explain"}},
}

// serveREST hands a call to the transcoder, whose router takes the first colon of a path for the
// start of a verb and decodes what it is given: ids go to it escaped. The transcoder blames itself for
// a parameter that does not exist and takes no body but declared JSON; curl declares forms.
func (h *handler) serveREST(w http.ResponseWriter, r *http.Request) {
	path, ok := routerPath(r.Method, r.URL.EscapedPath())
	if !ok {
		writeError(w, status.New(codes.InvalidArgument, "the path is not well escaped").Proto())
		return
	}
	u := *r.URL
	u.Path, u.RawPath = path, ""
	r2 := r.WithContext(r.Context())
	r2.URL = &u
	if err := checkQuery(h.routes, r.Method, path, r.URL.Query()); err != nil {
		writeError(w, status.Convert(err).Proto())
		return
	}
	if ct := r.Header.Get("Content-Type"); r.ContentLength != 0 && (ct == "" || ct == "application/x-www-form-urlencoded") {
		r2.Header = r.Header.Clone()
		r2.Header.Set("Content-Type", "application/json")
	}
	h.rest.ServeHTTP(w, r2)
}

// routerPath escapes the ids of a path, but for the colon before a verb.
func routerPath(method, escaped string) (string, bool) {
	parts := strings.Split(strings.TrimPrefix(escaped, "/v1/"), "/")
	for i := 1; i < len(parts); i++ {
		part, verb := parts[i], ""
		if i == len(parts)-1 && i == 1 {
			part, verb = cutVerb(part, verbs[parts[0]][method])
		}
		id, err := url.PathUnescape(part)
		if err != nil {
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
