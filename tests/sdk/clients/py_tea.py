"""alibabacloud-ehpc20180412 and tea-openapi: the product's own client (requests or aiohttp), or the
generic call that users of its release 4, which dropped the action, must write."""
import asyncio

from alibabacloud_ehpc20180412 import models
from alibabacloud_ehpc20180412.client import Client
from alibabacloud_tea_openapi import models as openapi
from alibabacloud_tea_openapi.client import Client as OpenApi
from alibabacloud_tea_util import models as util

from lines import Refused, serve


def call(request):
    scheme, address = request["endpoint"].split("://")
    config = openapi.Config(
        access_key_id=request["key"],
        access_key_secret=request["secret"],
        security_token=request.get("token"),
        endpoint=address,
        protocol=scheme,
        ca=request.get("ca"),
        # The SDK's name for the signature in the query.
        signature_algorithm=request.get("algorithm"),
    )
    runtime = util.RuntimeOptions()
    parameters = request["parameters"]
    try:
        if request["style"] in ("typed", "async"):
            query = models.ListContainerImagesRequest(
                cluster_id=parameters.get("ClusterId"),
                container_type=parameters.get("ContainerType"),
                page_number=parameters.get("PageNumber"),
                page_size=parameters.get("PageSize"),
            )
            client = Client(config)
            if request["style"] == "async":
                reply = asyncio.run(client.list_container_images_with_options_async(query, runtime))
            else:
                reply = client.list_container_images_with_options(query, runtime)
            return reply.body.to_map()
        params = openapi.Params(
            action=request["action"],
            version=request["version"],
            protocol=scheme.upper(),
            pathname="/",
            method=request.get("method", "POST"),
            auth_type="AK",
            style="RPC",
            req_body_type="formData",
            body_type="json",
        )
        where = "body" if request["style"] == "body" else "query"
        values = {name: str(value) for name, value in parameters.items()}
        call = openapi.OpenApiRequest(**{where: values})
        return OpenApi(config).call_api(params, call, runtime)["body"]
    except Exception as error:
        code = getattr(error, "code", None)
        data = getattr(error, "data", None) or {}
        status = getattr(error, "status_code", None) or data.get("statusCode")
        if not (code and status):
            raise
        request_id = getattr(error, "request_id", None) or data.get("RequestId")
        raise Refused(error, code, status, error.message, request_id) from error


serve(call)
