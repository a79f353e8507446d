# The image that "make image" makes: "make dockerfile" builds it from here, and compares them.
FROM golang:1.26-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends iptables
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /egressip-operator . \
 && go run ./hack/image -binary /egressip-operator -tree /image

FROM scratch
COPY --from=build /image /
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin
ENTRYPOINT ["/egressip-operator"]
