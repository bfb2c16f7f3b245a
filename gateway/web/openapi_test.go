package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestOpenAPI: every path of the services is described, once, under the name its parameter has for people.
func TestOpenAPI(t *testing.T) {
	serve, err := newOpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	serve(w, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	var doc struct {
		OpenAPI string                               `json:"openapi"`
		Paths   map[string]map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.") {
		t.Fatalf("%v: %.200s", err, w.Body.String())
	}
	for path := range doc.Paths {
		if strings.Contains(path, ".") {
			t.Errorf("%s: a parameter has the name of a field of its request", path)
		}
	}
	for _, want := range []string{
		"GET /v1/twins/{id}", "PATCH /v1/twins/{id}", "DELETE /v1/twins/{id}", "PUT /v1/rules/{id}", "GET /v1/rules/{id}",
		"GET /v1/twins:watch", "POST /v1/twins/{id}/commands/{name}", "POST /v1/alerts/{id}:acknowledge", "GET /v1/audit",
	} {
		method, path, _ := strings.Cut(want, " ")
		if doc.Paths[path][strings.ToLower(method)] == nil {
			t.Errorf("%s is not described", want)
		}
	}
	watch, _ := json.Marshal(doc.Paths["/v1/twins:watch"]["get"]["responses"])
	if !strings.Contains(string(watch), "application/x-ndjson") {
		t.Errorf("a watch answers with %s, want one message a line", watch)
	}
}
