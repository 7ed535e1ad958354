# make image puts what is copied here into dist; nothing is built or fetched.
FROM scratch
COPY dist/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY dist/muster /muster
USER 65532:65532
EXPOSE 8425
ENTRYPOINT ["/muster"]
CMD ["serve"]
