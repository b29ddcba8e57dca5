# The compile options of every target.

function(glesam_link_options target)
  if(GLESAM_SANITIZE)
    target_link_options(${target} PRIVATE -fsanitize=${GLESAM_SANITIZE})
  endif()
endfunction()

function(glesam_target target)
  target_compile_features(${target} PRIVATE cxx_std_17)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  # Fused multiply-adds exist only on some processors. Without contraction to them, the
  # preprocessing is bit-exact on all processors.
  if(MSVC)
    target_compile_options(${target} PRIVATE /W4 /fp:precise /utf-8 $<$<BOOL:${GLESAM_WERROR}>:/WX>)
    target_compile_definitions(${target} PRIVATE NOMINMAX _CRT_SECURE_NO_WARNINGS)
  else()
    target_compile_options(${target} PRIVATE -Wall -Wextra -ffp-contract=off
      $<$<BOOL:${GLESAM_WERROR}>:-Werror>)
    if(WIN32)
      target_compile_definitions(${target} PRIVATE NOMINMAX)
    endif()
  endif()
  if(GLESAM_SANITIZE)
    target_compile_options(${target} PRIVATE
      -fsanitize=${GLESAM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  endif()
  glesam_link_options(${target})
endfunction()
